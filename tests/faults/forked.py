"""Commands of `reconcile` in a fork of this process, which has imported everything once.

Python and its imports are two thirds of what a cell of the matrix costs, and a cell is some eight commands beside the one
that fails. Those run here; whatever has a failpoint or an input is a program, as everywhere else.
"""

import ctypes
import importlib
import os
import pkgutil
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

import reconciler
from lab.world import Result, World, children_of
from reconciler.linux import failpoint

_LIBC = ctypes.CDLL(None, use_errno=True)
_ROOMS = ("cli", "verbs", "converge", "plan", "manifest", "engine", "store", "model", "linux", "schema")


class ForkedWorld(World):
    """A world whose commands without a failpoint are forks of this process."""

    def _call(self, arguments: Sequence[str], stdin: str, env: Mapping[str, str], timeout: float) -> Result:
        if stdin or {failpoint.VARIABLE, failpoint.ON_EXIT} & set(env):
            return super()._call(arguments, stdin, env, timeout)
        return self._fork(arguments, self.environment(env), timeout)

    def _fork(self, arguments: Sequence[str], environment: Mapping[str, str], timeout: float) -> Result:
        import_everything()
        out, err = os.memfd_create("out"), os.memfd_create("err")
        try:
            child = os.fork()
            if child == 0:
                self._become(arguments, environment, out, err)
            code = _wait(child, timeout)
            said = [os.pread(each, os.fstat(each).st_size, 0).decode(errors="replace") for each in (out, err)]
        finally:
            os.close(out)
            os.close(err)
        result = Result(f"reconcile {' '.join(arguments)}", code, *said)
        assert code != -signal.SIGALRM, f"not done after {timeout} s\n{result}"
        return result

    def _become(self, arguments: Sequence[str], environment: Mapping[str, str], out: int, err: int) -> NoReturn:
        """Of the child: enter the world, and be the command. Never returns, whatever happens."""
        code = 70
        try:
            _enter(self.holder)
            os.chdir(self.folder)
            inner = os.fork()  # A process namespace is that of the next child.
            if inner:
                code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
                os._exit(code if code >= 0 else 128 - code)
            null = os.open(os.devnull, os.O_RDONLY)
            for number, descriptor in enumerate((null, out, err)):
                os.dup2(descriptor, number)
            os.environ.clear()
            os.environ.update(environment)
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            from reconciler.cli.main import run

            code = run(list(arguments))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def import_everything() -> None:
    """Every module of the rooms that a command goes through."""
    if "reconciler.cli.main" in sys.modules:
        return
    for room in _ROOMS:
        package = importlib.import_module(f"{reconciler.__name__}.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations" not in module.name:
                importlib.import_module(module.name)


def _enter(holder: int) -> None:
    spaces = [os.open(f"/proc/{holder}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("net", "pid", "mnt")]
    for space in spaces:
        if _LIBC.setns(space, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _wait(child: int, timeout: float) -> int:
    """Its exit code; that of SIGALRM where it took too long."""
    opened = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([opened], [], [], timeout)
    finally:
        os.close(opened)
    if not ended:
        for pid in (*children_of(child), child):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if ended else -signal.SIGALRM
