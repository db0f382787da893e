"""A process that is to go with another one: it goes however that one does."""

import os
import signal
import subprocess
import sys

import pytest

from reconciler.linux.hangup import HangUp

PROGRAM = """
import subprocess, sys
from reconciler.linux.hangup import HangUp
with HangUp() as hang_up:
    child = subprocess.Popen(["sleep", "1000"], pass_fds=(hang_up.read_end,))
    hang_up.send_to(child.pid)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_it_hangs_up_however_we_end(number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe) as ours:
        assert ours.stdout is not None
        assert ours.stdout.readline().strip().isdigit()
        os.kill(ours.pid, number)
        assert ours.stdout.read() == b"", "it holds our output as well, until it ends"


def test_it_is_no_other_signal_than_sighup_and_none_while_we_live() -> None:
    with HangUp() as hang_up:
        child = subprocess.Popen(["sleep", "1000"], pass_fds=(hang_up.read_end,))
        hang_up.send_to(child.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.05)
    assert child.wait(10) == -signal.SIGHUP
