"""Canonical specs of a stack -> the text of a manifest that means the same: the opposite of `desire.py`.

Sensitive values become variables, and a comment says which. What the image says of itself (the volumes of its VOLUMEs) is
left out: it says it again. Never looks outside.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from reconciler.manifest.emit import dump_yaml
from reconciler.manifest.networks import BUILT_IN, DEFAULT
from reconciler.manifest.ports import ANY
from reconciler.model.health import HTTP, TCP
from reconciler.model.key import Key, Kind, split_key
from reconciler.model.spec import (
    Attachment,
    ConfigSpec,
    ContainerSpec,
    Dependency,
    FileMount,
    Healthcheck,
    ImageSpec,
    Logs,
    Mount,
    NetworkSpec,
    Resources,
    SecretSpec,
    Sensitive,
    Spec,
    VolumeSpec,
)
from reconciler.model.units import render_duration, render_size

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_NAME = re.compile(r"[^a-z0-9_.-]+")
_SECTIONS = {Kind.IMAGE: "images", Kind.NETWORK: "networks", Kind.VOLUME: "volumes"}


class Exported(Struct, kw_only=True):
    """One manifest on its way out."""

    stack: str
    specs: Mapping[Key, Spec]
    variables: dict[str, tuple[str, str]] = {}
    """By the variable's name: its value and whose it is."""
    borrowed: dict[str, dict[str, str]] = {}
    """`networks` and `volumes`: how a borrowed one is called here, to `STACK/NAME`."""
    images: dict[str, str] = {}
    """Names of image resources to what they are called here, where a manifest can't call them so."""
    notes: list[str] = []
    folder: str = ""
    """What relative paths begin at: those of files of which a copy is kept are written so."""


def export_stack(
    name: str,
    specs: Mapping[Key, Spec],
    *,
    contents: Mapping[Key, bytes] = {},
    folder: str = "",
    origin: str = "",
    head: str = "",
) -> str:
    """The manifest of a stack.

    `contents` are those of configs that are no secret, `folder` is where its manifest was, "" where nobody knows; `origin`
    is what its `origin:` says, `head` the first line of its comment.
    """
    out = Exported(stack=name, specs=specs, folder=folder or _folder_of(specs))
    containers = _containers(out)
    sections = {section: _section(out, kind) for kind, section in _SECTIONS.items()}
    data: dict[str, Any] = {"apiVersion": "reconcile/v1", "name": name, **({"origin": origin} if origin else {})}
    sections |= {"configs": _configs(out, contents), "secrets": _secrets(out)}
    data |= {section: found for section, found in sections.items() if found}
    data |= {"containers": containers} if containers else {}
    lines = [head or f"What is recorded of the stack {name}.", *out.notes]
    if out.variables:
        lines.append(
            "Not written here, for these are secret: give them with --var NAME=VALUE, in the environment or in .env."
        )
        lines += [f"  {variable}: {whose}" for variable, (_, whose) in sorted(out.variables.items())]
    return "".join(f"# {line}\n" for line in lines) + dump_yaml(data)


# --- sections ---


def _section(out: Exported, kind: Kind) -> dict[str, Any]:
    """One of images, networks, volumes; what needs no declaration is left out."""
    found: dict[str, Any] = {}
    for key, spec in sorted(out.specs.items()):
        parts = split_key(key)
        if parts.kind is not kind:
            continue
        if isinstance(spec, ImageSpec):
            if parts.name != spec.reference or spec.pull != "missing":
                found[out.images.get(parts.name, parts.name)] = _plain(spec, {"reference": ("from", _text)})
        elif isinstance(spec, NetworkSpec):
            usual = NetworkSpec(driver=parts.name if parts.name in BUILT_IN else "bridge")
            if spec != usual or parts.name not in (DEFAULT, *BUILT_IN):
                found[parts.name] = _plain(spec, {})
        elif isinstance(spec, VolumeSpec):
            base, at, replica = parts.name.partition("@")
            if not at:
                found[base] = _volume(out, base, spec)
            elif replica.isdigit():  # and no path of an image's VOLUME
                found[base] = {"per_replica": True, **_volume(out, base, spec)}
    borrowed = {name: {"from": owner} for name, owner in out.borrowed.get(_SECTIONS[kind], {}).items()}
    return found | borrowed


def _configs(out: Exported, contents: Mapping[Key, bytes]) -> dict[str, Any]:
    """Configs with what is in them; one whose text had variables in it may be a secret."""
    found: dict[str, Any] = {}
    for key, spec in sorted(out.specs.items()):
        if not isinstance(spec, ConfigSpec):
            continue
        name = split_key(key).name
        try:
            found[name] = {"content": _text(contents[key].decode())}
        except KeyError:
            found[name] = {"content": f"${{{_secret(out, key, 'the whole text of the config')}}}"}
        except UnicodeDecodeError:
            out.notes.append(f"The config {name} is no text: write the file {name}.config beside this one.")
            found[name] = {"file": f"./{name}.config"}
    return found


def _secrets(out: Exported) -> dict[str, Any]:
    return {
        split_key(key).name: {"env": _secret(out, key, "the secret")}
        for key, spec in sorted(out.specs.items())
        if isinstance(spec, SecretSpec)
    }


def _secret(out: Exported, key: Key, what: str) -> str:
    """The variable that a content comes from."""
    name = split_key(key).name
    variable = re.sub(r"[^A-Z0-9]", "_", f"{'' if name[0].isalpha() else '_'}{name.upper()}")
    while variable in out.variables:
        variable += "_"
    out.variables[variable] = (key, f"{what} {name}")
    return variable


def _folder_of(specs: Mapping[Key, Spec]) -> str:
    """A folder that all files lie below of which a copy is kept."""
    containers = [spec for spec in specs.values() if isinstance(spec, ContainerSpec)]
    kept = [posixpath.dirname(mount.source) for spec in containers for mount in spec.mounts.values() if mount.digest]
    return posixpath.commonpath(kept) if kept else ""


def _containers(out: Exported) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, spec in sorted(out.specs.items()):
        parts = split_key(key)
        if not isinstance(spec, ContainerSpec):
            continue
        if parts.name in found:
            found[parts.name]["replicas"] = max(parts.index, found[parts.name].get("replicas", 1))
        else:
            found[parts.name] = _container(out, parts.name, parts.index, spec)
    return found


def _container(out: Exported, name: str, index: int, spec: ContainerSpec) -> dict[str, Any]:
    """A container as a manifest says it: fields that have their default are left out."""
    rules: Rules = {
        "image": ("image", lambda value: _image(out, value)),
        "env": ("env", lambda value: _env(out, name, value)),
        # Its values are in `env`, as variables.
        "env_file": None,
        "remove": None,
        "stop_signal": ("stop_signal", lambda value: int(value) if value.isdigit() else _text(value)),
        "stop_grace": ("stop_grace", render_duration),
        "shm_size": ("shm_size", render_size),
        "networks": ("networks", lambda value: _networks(out, value)),
        "ports": ("ports", _ports),
        "configs": ("configs", lambda value: _files(value, "/", 0o444)),
        "secrets": ("secrets", lambda value: _files(value, "/run/secrets/", 0o400)),
        "mounts": ("mounts", lambda value: _mounts(out, f"{name}-{index}@", value)),
        "depends_on": ("depends_on", _dependencies),
        "healthcheck": ("healthcheck", _healthcheck),
        "resources": ("resources", _resources),
        "logs": ("logs", _logs),
        "cap_add": ("cap_add", _capabilities),
        "cap_drop": ("cap_drop", _capabilities),
        "ulimits": ("ulimits", lambda value: {n: {"soft": soft, "hard": hard} for n, (soft, hard) in value.items()}),
    }
    return {word: value for word, value in _plain(spec, rules).items() if value not in ({}, []) or word == "entrypoint"}


# --- values ---

Rules = Mapping[str, tuple[str, Callable[[Any], Any]] | None]
"""A field to its word in manifests and how its value is written there; None for what is not written."""


def _plain(spec: Struct, rules: Rules) -> dict[str, Any]:
    """The fields of a struct that differ from their defaults, as a manifest has them."""
    out: dict[str, Any] = {}
    for info in fields(type(spec)):
        value = getattr(spec, info.name)
        default = info.default if info.default_factory is NODEFAULT else info.default_factory()
        if value == default:
            continue
        rule = rules.get(info.name, (info.name, _text))
        if rule is not None:
            out[rule[0]] = rule[1](value)
    return out


def _text(value: Any) -> Any:
    """Plain data in which no text is taken for a variable."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {name: _text(below) for name, below in value.items()}
    if isinstance(value, tuple | list):
        return [_text(below) for below in value]
    return value if isinstance(value, bool | int | float) or value is None else _text(msgspec.to_builtins(value))


def _image(out: Exported, name: str) -> str:
    """The image's name in the manifest: one that is named by its reference and has more to say gets a name of its own."""
    spec = next(
        (spec for key, spec in out.specs.items() if split_key(key).kind is Kind.IMAGE and split_key(key).name == name), None
    )
    if isinstance(spec, ImageSpec) and name == spec.reference and spec.pull != "missing":
        return out.images.setdefault(name, _unused(name.rpartition("/")[2].partition(":")[0], out.images.values()))
    return name


def _unused(wanted: str, taken: Any) -> str:
    """A name that a manifest takes, and that nothing else has."""
    base = _NO_NAME.sub("-", wanted.lower()).strip("-_.") or "it"
    number, name = 1, base
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _volume(out: Exported, name: str, spec: VolumeSpec) -> dict[str, Any]:
    opts = {
        word: _variable(out, name, f"{name}_{word}", value.value) if isinstance(value, Sensitive) else _text(value)
        for word, value in spec.driver_opts.items()
    }
    plain = _plain(spec, {"moved": None, "driver_opts": None})
    return plain | ({"driver_opts": opts} if opts else {})


def _env(out: Exported, container: str, env: Mapping[str, str | Sensitive]) -> dict[str, str]:
    return {
        name: _variable(out, container, name, value.value) if isinstance(value, Sensitive) else _text(value)
        for name, value in env.items()
    }


def _variable(out: Exported, container: str, name: str, value: str) -> str:
    """`${NAME}`, or a longer name where another container has another value under it."""
    plain = name if _VARIABLE.fullmatch(name) else re.sub(r"[^A-Za-z0-9_]", "_", f"_{name}")
    tried = plain
    while tried in out.variables and out.variables[tried][0] != value:
        tried = f"{re.sub(r'[^A-Z0-9]', '_', container.upper())}_{tried}"
    _, whose = out.variables.get(tried, (value, ""))
    out.variables[tried] = (value, f"{whose}, {container}" if whose else f"{name} of {container}")
    # A value may be empty: `${NAME}` is an error only where nothing is set.
    return f"${{{tried}}}"


def _networks(out: Exported, networks: Mapping[str, Attachment]) -> Any:
    if networks == {DEFAULT: Attachment()}:
        return {}
    named = {_borrowed(out, "networks", name): _plain(attachment, {}) for name, attachment in networks.items()}
    return list(named) if not any(named.values()) else {name: below or None for name, below in named.items()}


def _borrowed(out: Exported, section: str, name: str) -> str:
    """What a network or a volume is called in the manifest; one of another stack gets its own name there if it can."""
    owner, slash, short = name.partition("/")
    if not slash or "@" in owner:
        return name
    known = out.borrowed.setdefault(section, {})
    for here, there in known.items():
        if there == name:
            return here
    kind = Kind.NETWORK if section == "networks" else Kind.VOLUME
    own = {split_key(key).name for key in out.specs if split_key(key).kind is kind}
    here = _unused(short, {*own, *known, DEFAULT, *BUILT_IN})
    known[here] = name
    return here


def _ports(ports: Mapping[str, int]) -> list[str]:
    out = []
    for published, inside in ports.items():
        host, _, protocol = published.partition("/")
        text = f"{host.removeprefix(f'{ANY}:')}:{inside}"
        out.append(text if protocol == "tcp" else f"{text}/{protocol}")
    return out


def _mounts(out: Exported, own: str, mounts: Mapping[str, Mount]) -> list[dict[str, Any]]:
    found = []
    for target, mount in mounts.items():
        if mount.source.startswith(own) and not mount.source.removeprefix(own).isdigit():
            out.notes.append(f"{own[:-1]}: the volume at {target} has no name: its image declares it, or --volume did.")
            continue
        source = mount.source
        if mount.digest:
            source = _relative(out, source)
        elif mount.type == "volume":
            base, replica, number = source.rpartition("@")
            source = _borrowed(out, "volumes", base if replica and number.isdigit() else source)
        rules: Rules = {
            **dict.fromkeys(("digest", "uid", "gid")),
            "source": ("source", lambda _, source=source: _text(source)),  # type: ignore[misc]  # the default is its value
            "size": ("size", render_size),
            "mode": None if mount.digest else ("mode", lambda value: f"{value:04o}"),
        }
        plain = _plain(mount, rules)
        found.append({"type": plain.pop("type"), "target": _text(target), **plain})
    return found


def _relative(out: Exported, source: str) -> str:
    note = f"Relative paths begin at {out.folder}: that is where this file belongs."
    if note not in out.notes:
        out.notes.append(note)
    relative = posixpath.relpath(source, out.folder)
    return relative if relative.startswith("../") else f"./{relative}"


def _files(files: Mapping[str, FileMount], folder: str, mode: int) -> list[Any]:
    """Configs or secrets of a container; what is usual for their kind is left out."""
    found: list[Any] = []
    for target, file in files.items():
        rules: Rules = {"digest": None, "mode": None}
        plain = {"source": file.source, **({"target": target} if target != folder + file.source else {})}
        plain |= {**_plain(file, rules), **({"mode": f"{file.mode:04o}"} if file.mode != mode else {})}
        found.append(file.source if list(plain) == ["source"] else plain)
    return found


def _dependencies(dependencies: Mapping[str, Dependency]) -> dict[str, Any]:
    return {
        name: dependency.condition if dependency == Dependency(condition=dependency.condition) else _plain(dependency, {})
        for name, dependency in dependencies.items()
    }


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    seconds = ("interval", "timeout", "start_period", "start_interval")
    rules: Rules = {"test": None, **{word: (word, render_duration) for word in seconds}}
    numbers = _plain(check, rules)
    if not check.test:  # 0 is what the manifest did not say
        return {word: value for word, value in numbers.items() if value not in (0, "0s")}
    kind, *words = check.test
    if kind == HTTP:
        scheme, _, rest = words[0].partition("://:")
        port, slash, path = rest.partition("/")
        http = {"scheme": scheme, "port": int(port), "path": _text(slash + path), "status": words[1]}
        return {"http": http, **numbers}
    return {"tcp": int(words[0]), **numbers} if kind == TCP else {"test": _text(check.test), **numbers}


def _resources(resources: Resources) -> dict[str, Any]:
    return _plain(resources, {"memory": ("memory", render_size)})


def _logs(logs: Logs) -> dict[str, Any]:
    return _plain(logs, {"max_size": ("max_size", render_size)})


def _capabilities(names: tuple[str, ...]) -> list[str]:
    return [name.removeprefix("CAP_") for name in names]
