"""What a container uses, read from folders as both versions of cgroups have them, and from a process of our own."""

import os
from pathlib import Path

import pytest

from reconciler.linux import cgroups
from reconciler.linux.usage import Usage, find_own_cgroup, read_memory, read_traffic, read_usage


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [(str(tmp_path), frozenset({"unified", "cpu", "memory", "pids"}))]
    monkeypatch.setattr(cgroups, "_known", known)
    monkeypatch.setattr(cgroups, "_points", {})
    write(
        tmp_path / "box",
        memory__current="1000\n",
        memory__stat="anon 600\ninactive_file 300\nactive_file 100\n",
        memory__max="4096\n",
        memory__events="low 0\noom_kill 2\n",
        pids__current="7\n",
        pids__max="max\n",
        cpu__stat="usage_usec 1500000\nuser_usec 1000000\n",
        cpu__max="max 100000\n",
    )
    assert read_usage("/box") == Usage(cpu_seconds=1.5, memory=700, memory_limit=4096, pids=7, oom_kills=2)


def test_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("memory", "pids", "cpu", "cpuacct")
    known = [(str(tmp_path / name), frozenset({name})) for name in names]
    monkeypatch.setattr(cgroups, "_known", known)
    monkeypatch.setattr(cgroups, "_points", {})
    write(
        tmp_path / "memory" / "box",
        memory__usage_in_bytes="1000\n",
        memory__stat="inactive_file 1\ntotal_inactive_file 300\n",
        memory__limit_in_bytes=f"{2**63 - 4096}\n",
        memory__oom_control="oom_kill_disable 0\noom_kill 1\n",
    )
    write(tmp_path / "pids" / "box", pids__current="3\n")
    write(tmp_path / "cpuacct" / "box", cpuacct__usage="2500000000\n")
    assert read_usage("/box") == Usage(cpu_seconds=2.5, memory=700, memory_limit=None, pids=3, oom_kills=1)


def test_what_is_gone_is_nothing_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_known", [(str(tmp_path), frozenset({"unified", "cpu", "memory", "pids"}))])
    monkeypatch.setattr(cgroups, "_points", {})
    assert read_usage("/gone") == Usage(cpu_seconds=None, memory=None, memory_limit=None, pids=None, oom_kills=0)
    assert read_memory("/gone") is None
    assert read_traffic(2**22 + 1) is None
    assert find_own_cgroup(2**22 + 1, "0123456789ab") == ""


def test_network_of_the_host_is_nobodys_and_a_number_that_is_anothers_is_told_apart() -> None:
    assert read_traffic(os.getpid()) is None
    assert find_own_cgroup(os.getpid(), "0123456789ab") == ""
