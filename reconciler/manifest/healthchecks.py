"""`healthcheck:` of a container -> canonical `Healthcheck`. A step of `containers.py`.

A port is asked by `http` and `tcp`, which become words of `test` like a command's: (HTTP, URL, STATUSES), (TCP, PORT).
"""

import re
from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.durations import read_duration
from reconciler.manifest.faults import Path, shorten
from reconciler.model.health import HTTP, TCP, USUAL
from reconciler.model.spec import Healthcheck

_WAYS = ("test", "http", "tcp")
_URL = re.compile(r"(?:(?P<scheme>https?)://)?(?P<host>[^/:]*):?(?P<port>[0-9]{1,5})?(?P<path>/.*)?")
_STATUSES = "200-399"
_UNSAID = Healthcheck(interval=0.0, timeout=0.0, retries=0, start_period=0.0, start_interval=0.0)


def read_healthcheck(draft: Draft, written: dict[str, Any] | None, path: Path) -> Healthcheck | None:
    """The check; None where the manifest says nothing, and an empty `test` where it changes the image's own."""
    if not written:
        return None
    ways = [way for way in _WAYS if way in written]
    for way in ways[1:]:
        draft.blame((*path, way), f"there is `{ways[0]}` already", "keep one of test, http and tcp", at_key=True)
    usual = USUAL if ways else _UNSAID
    return Healthcheck(
        test=_read_way(draft, ways[0], written[ways[0]], (*path, ways[0])) if ways else (),
        interval=read_duration(draft, written, (*path, "interval"), default=usual.interval, least=0.001),
        timeout=read_duration(draft, written, (*path, "timeout"), default=usual.timeout, least=0.001),
        retries=written.get("retries", usual.retries),
        start_period=read_duration(draft, written, (*path, "start_period"), default=usual.start_period),
        start_interval=read_duration(
            draft, written, (*path, "start_interval"), default=usual.start_interval, least=0.001
        ),
        on_unhealthy=written.get("on_unhealthy", "restart"),
    )  # fmt: skip


def _read_way(draft: Draft, way: str, written: Any, path: Path) -> tuple[str, ...]:
    read = {"test": _read_test, "http": _read_http, "tcp": _read_tcp}[way]
    return read(draft, written, path)


def _read_test(draft: Draft, written: Any, path: Path) -> tuple[str, ...]:
    if isinstance(written, str):
        return ("CMD-SHELL", written)
    first, count = written[0], len(written)
    if first not in ("CMD", "CMD-SHELL", "NONE"):
        hint = "write [CMD, …] to run it as it is, or one string for a shell"
        draft.blame((*path, 0), "the list must begin with CMD, CMD-SHELL or NONE", hint)
    elif first == "NONE" and count > 1:
        draft.blame(path, "nothing can follow NONE")
    elif first == "CMD" and count == 1:
        draft.blame(path, "CMD needs a command")
    elif first == "CMD-SHELL" and count != 2:
        draft.blame(path, "CMD-SHELL needs one string", "write the whole command line as one string")
    return tuple(written)


def _read_http(draft: Draft, written: Any, path: Path) -> tuple[str, ...]:
    """`8080`, `:8080/healthz`, `https://:8443/`, or a map -> (HTTP, http://:8080/healthz, 200-399)."""
    if isinstance(written, dict):
        parts = {"scheme": "http", "path": "/", **written}
        status = f"{written.get('status', _STATUSES)}"
    else:
        parts, status = _split_url(draft, f"{written}", path), _STATUSES
    port = int(parts.get("port") or 0)
    if "port" in parts and not 0 < port < 65536:
        draft.blame(path, f"found port {port}; expected 1 to 65535")
    if any(not "!" <= sign <= "~" for sign in parts.get("path", "/")):
        draft.blame(path, "the path has a space, a control sign or a letter beyond ASCII", "write it as %20 and the like")
    low, _, high = status.partition("-")
    if not 100 <= int(low) <= int(high or low) <= 599:
        draft.blame((*path, "status"), f"found {shorten(status)}; expected a status from 100 to 599, or a range of them")
    return (HTTP, f"{parts.get('scheme')}://:{port}{parts.get('path')}", f"{low}-{high or low}")


def _split_url(draft: Draft, text: str, path: Path) -> dict[str, Any]:
    found = {"port": text} if text.isdigit() else None
    matched = _URL.fullmatch(text)
    if found is None and matched and matched["port"]:
        found = {name: value for name, value in matched.groupdict().items() if value}
    if found is None:
        draft.blame(path, f'found "{shorten(text)}"; expected a port and a path such as :8080/healthz')
        return {}
    if found.get("host"):
        draft.blame(
            path, f"found the host {found['host']}; the container itself is asked", "leave the host out: :8080/healthz"
        )
    return {"scheme": "http", "path": "/", **found}


def _read_tcp(draft: Draft, written: Any, path: Path) -> tuple[str, ...]:
    text = f"{written['port'] if isinstance(written, dict) else written}".removeprefix(":")
    if not text.isdigit() or not 0 < int(text) < 65536:
        draft.blame(path, f'found "{shorten(text)}"; expected a port from 1 to 65535')
    return (TCP, text)
