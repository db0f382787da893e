"""`run`: a container by flags, with its streams or without."""

from contextlib import closing
from typing import Any

from reconciler.api.answers import Opener
from reconciler.api.frames import Begun, Listener
from reconciler.api.sessions import Run
from reconciler.engine.protocol import Attached, Streams
from reconciler.manifest.command import Flags
from reconciler.model.errors import Failed, Usage
from reconciler.model.events import silent
from reconciler.verbs import run as running
from reconciler.verbs.end import remove
from reconciler.verbs.face import Face
from reconciler.verbs.root import Root


def run(opened: Opener, ask: Run, listener: Listener) -> Any:
    """Its key, name and incarnation; where it was not detached its exit code, null where it goes on, and `unread` where
    that is because nobody reads what it writes any more. Raises what `run` says with 125 to 127."""

    def work(streams: Streams | None) -> Any:
        if ask.remove and ask.restart != "no":
            raise Usage("--rm and --restart contradict each other; leave one out")
        flags = _read_flags(ask)
        running.check(flags, environment=ask.environment, folder=ask.folder)
        with opened(create=True) as root:
            return _run(root, ask, flags, listener, streams)

    return listener.join(work)


def check_let_go(ended: Attached, name: str, listener: Listener) -> None:
    """Raise Failed where nobody typed the keys, but the controller let go."""
    if ended.exit_code is None and not ended.unread and listener.gone():
        hint = f"reconcile attach {name} joins it again"
        raise Failed(f"{name}: the controller let go of it, for it ends or was asked to; it goes on", hint=hint)


def _run(root: Root, ask: Run, flags: Flags, listener: Listener, streams: Streams | None) -> Any:
    face = Face(emit=listener.emit, gone=listener.gone)
    started = running.start(root, flags, environment=ask.environment, folder=ask.folder, attach=not ask.detach, face=face)
    with closing(started):
        found = {"key": started.key, "name": started.name, "incarnation": started.made.incarnation}
        if started.line is None:
            return found
        if streams is None:  # Others hear it of theirs.
            listener.item(Begun(tty=ask.tty, stdin=ask.stdin))
        ended = started.line.relay(stdin=ask.stdin, keys=ask.keys, signals=ask.signals, streams=streams)
        check_let_go(ended, started.name, listener)
        if ask.remove and (ended.exit_code is not None or ended.unread):
            remove(root, started.key, emit=silent)
    return {**found, "exit_code": ended.exit_code, "unread": ended.unread}


def _read_flags(ask: Run) -> Flags:
    """The flags as a manifest would have them."""
    bounds = {"memory": ask.memory, "cpus": ask.cpus}
    written: dict[str, Any] = {
        "command": list(ask.command),
        "env": [pair for pair in ask.env if "=" in pair or pair in ask.environment],
        "mounts": list(ask.mounts),
        "ports": list(ask.ports),
        "user": ask.user,
        "workdir": ask.workdir,
        "read_only": ask.read_only,
        "cap_add": list(ask.cap_add),
        "cap_drop": list(ask.cap_drop),
        "labels": list(ask.labels),
        "hostname": ask.hostname,
        "init": ask.init,
        "stop_signal": ask.stop_signal,
        "tty": ask.tty,
        "stdin": ask.stdin,
        "resources": {name: value for name, value in bounds.items() if value not in ("", None)},
    }
    written = {name: value for name, value in written.items() if value not in ("", [], {}, False)}
    written["restart"] = ask.restart
    if ask.entrypoint is not None:
        written["entrypoint"] = [ask.entrypoint] if ask.entrypoint else []
    return Flags(
        name=ask.name,
        image=ask.image,
        written=written,
        networks=tuple(dict.fromkeys(ask.networks)),
        pull=ask.pull,
        remove=ask.remove,
    )
