"""An image's config -> checked facts: what it runs, where it wants volumes, how its health is probed. Pure.

It comes from strangers: every field that the engine acts on is looked at here, and one that asks for what no image may ask
for is refused by name. Labels and annotations are data, never orders. Source: OCI image-spec 1.1, config.md.
"""

import posixpath
import re
from typing import Any

from reconciler.engine.native.content.documents import DIGEST, Platform, parse_json
from reconciler.model.errors import ContentError
from reconciler.model.spec import Healthcheck

_MOST_VOLUMES = 100
_MOST_PORTS = 1000
_MOST_ENV_BYTES = 256 << 10
_FORBIDDEN_VOLUMES = ("/proc", "/sys", "/dev")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


def parse_config(data: bytes, *, what: str) -> dict[str, Any]:
    """A config whose fields are as the spec says. Raises ContentError naming the field."""
    value = parse_json(data, what)
    rootfs = value.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or not all(isinstance(item, str) and DIGEST.fullmatch(item) for item in ids):
        raise ContentError(f"{what}: rootfs.diff_ids", "a list of digests", type(ids).__name__)
    for name in ("os", "architecture"):
        _check(isinstance(value.get(name), str), what, name, "text", value.get(name))
    run = value.get("config")
    _check(run is None or isinstance(run, dict), what, "config", "an object", run)
    _check_run(run or {}, f"{what}: config")
    return value


def diff_ids(config: dict[str, Any]) -> tuple[str, ...]:
    """Digests of the uncompressed layers, oldest first."""
    return tuple(config["rootfs"]["diff_ids"])


def config_platform(config: dict[str, Any]) -> Platform:
    """What the image says that it is made for."""
    variant = config.get("variant", "")
    return Platform(config["os"], config["architecture"], variant if isinstance(variant, str) else "")


def volumes_of(config: dict[str, Any]) -> tuple[str, ...]:
    """The paths of VOLUME, sorted."""
    run = config.get("config") or {}
    return tuple(sorted({_clean(path) for path in run.get("Volumes") or {}}))


def healthcheck_of(config: dict[str, Any]) -> Healthcheck | None:
    """The image's own health check, None where it has none. Docker writes durations in nanoseconds, 0 for its default."""
    found = (config.get("config") or {}).get("Healthcheck")
    if not found or not found.get("Test"):
        return None
    usual = Healthcheck(test=())
    seconds = {name: (found.get(name) or 0) / 1e9 for name in ("Interval", "Timeout", "StartPeriod", "StartInterval")}
    return Healthcheck(
        test=tuple(found["Test"]),
        interval=seconds["Interval"] or usual.interval,
        timeout=seconds["Timeout"] or usual.timeout,
        retries=found.get("Retries") or usual.retries,
        start_period=seconds["StartPeriod"],
        start_interval=seconds["StartInterval"] or usual.start_interval,
    )


def _check_run(run: dict[str, Any], what: str) -> None:
    for name in ("User", "WorkingDir", "StopSignal"):
        value = run.get(name)
        _check(value is None or _is_word(value), what, name, "text without control characters", value)
    for name in ("Cmd", "Entrypoint", "Shell"):
        _check_words(run.get(name), what, name)
    _check_env(run.get("Env"), what)
    labels = run.get("Labels")
    plain = labels is None or (isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values()))
    _check(plain, what, "Labels", "an object of texts", labels)
    _check_volumes(run.get("Volumes"), what)
    _check_ports(run.get("ExposedPorts"), what)
    _check_health(run.get("Healthcheck"), what)


def _check_words(value: object, what: str, name: str) -> None:
    fine = value is None or (isinstance(value, list) and all(isinstance(w, str) and "\x00" not in w for w in value))
    _check(fine, what, name, "a list of texts", value)


def _check_env(value: object, what: str) -> None:
    _check_words(value, what, "Env")
    assert value is None or isinstance(value, list)
    for item in value or []:
        # A newline in a value is legal, if odd; in a name it could write a second variable somewhere.
        _check(re.fullmatch(r"[^=\s\x00-\x1f\x7f]+=[^\x00]*", item, re.DOTALL), what, "Env", "NAME=VALUE", item)
    size = sum(len(item.encode(errors="replace")) for item in value or [])
    _check(size <= _MOST_ENV_BYTES, what, "Env", f"at most {_MOST_ENV_BYTES} bytes", size)


def _check_volumes(value: object, what: str) -> None:
    _check(value is None or isinstance(value, dict), what, "Volumes", "an object", value)
    assert value is None or isinstance(value, dict)
    _check(len(value or {}) <= _MOST_VOLUMES, what, "Volumes", f"at most {_MOST_VOLUMES}", len(value or {}))
    for path in value or {}:
        clean = _clean(path)
        fine = path.startswith("/") and ".." not in path.split("/") and _is_word(path) and len(path) < 1024
        fine = fine and clean != "/" and not any(f"{clean}/".startswith(f"{bad}/") for bad in _FORBIDDEN_VOLUMES)
        _check(fine, what, "Volumes", "absolute paths below / and outside /proc, /sys and /dev", path)


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")  # POSIX leaves two slashes in front as they are


def _check_ports(value: object, what: str) -> None:
    _check(value is None or isinstance(value, dict), what, "ExposedPorts", "an object", value)
    assert value is None or isinstance(value, dict)
    _check(len(value or {}) <= _MOST_PORTS, what, "ExposedPorts", f"at most {_MOST_PORTS}", len(value or {}))
    for port in value or {}:
        found = _PORT.fullmatch(port)
        fine = bool(found) and all(0 < int(number) < 65536 for number in found.groups()[:2] if number) if found else False
        _check(fine, what, "ExposedPorts", "PORT/tcp, /udp or /sctp", port)


def _check_health(value: object, what: str) -> None:
    if value is None:
        return
    _check(isinstance(value, dict), what, "Healthcheck", "an object", value)
    assert isinstance(value, dict)
    _check_words(value.get("Test"), what, "Healthcheck.Test")
    test = value.get("Test") or ["NONE"]
    _check(test[0] in ("CMD", "CMD-SHELL", "NONE"), what, "Healthcheck.Test", "CMD, CMD-SHELL or NONE first", test[0])
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        number = value.get(name) or 0
        fine = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 62
        _check(fine, what, f"Healthcheck.{name}", "a number that is not negative", number)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and not any(c < " " or c == "\x7f" for c in value) and len(value) <= 4096


def _check(fine: object, what: str, field: str, expected: str, found: object) -> None:
    if not fine:
        raise ContentError(f"{what}: {field}", expected, ascii(found)[:80])
