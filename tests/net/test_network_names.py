"""Names by aardvark-dns: who answers what to whom, and that nothing else is in the way."""

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lab.points import failing
from reconciler.engine.native import settle
from reconciler.engine.native.net import dns
from reconciler.linux import mounts
from reconciler.model.errors import Failed, ProgramFailed
from reconciler.model.key import Kind, make_key

pytestmark = pytest.mark.root

NO_ANSWER = ("no such name", "silence")
"""Compat: aardvark 1.4 denies what is not of the asker's networks, 1.14 asks the host's resolvers, which are none here."""


def ask(machine, where, server, name, *, patience=3.0):
    """The IPv4 answers of a resolver, `no such name`, or `silence`; asked again as resolvers do."""
    channel = machine.inside(where, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0" + struct.pack(">HH", 1, 1)
    with channel:
        deadline = time.monotonic() + patience
        answer = b""
        while not answer:
            if time.monotonic() > deadline:
                return "silence"
            channel.settimeout(min(patience, 0.5))
            channel.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + question, (server, 53))
            # Race: aardvark is between two sockets for a moment whenever it was told of names; a question is lost then.
            with suppress(OSError):
                answer = channel.recv(2000)
    if answer[3] & 15:
        return "no such name"
    count = struct.unpack(">H", answer[6:8])[0]
    rest = answer[12 + len(question) :]
    # Compat: aardvark 1.4 says some answers twice to who is on several networks.
    return sorted({socket.inet_ntoa(rest[at * 16 + 12 : at * 16 + 16]) for at in range(count)})


def test_names_and_aliases_answer_inside_their_network_only(either_machine, build):
    m = either_machine
    front, back = build.network("front", 1), build.network("back", 2)
    web = build.container("web", front, aliases=("www",))
    db = build.container("DB", front, back, host=3)
    far = build.container("far", back)
    m.up(front, back, web, db, far)
    assert ask(m, web, "10.64.1.1", "db") == ["10.64.1.3"]
    assert ask(m, far, "10.64.2.1", "db-1") == ["10.64.2.3"]
    assert ask(m, db, "10.64.1.1", "www") == ["10.64.1.2"]
    assert ask(m, web, "10.64.1.1", "web") == ["10.64.1.2"]
    assert ask(m, far, "10.64.2.1", "web", patience=1) in NO_ANSWER
    assert ask(m, far, "10.64.1.1", "web", patience=0.4) == "silence", "another network's resolver"
    assert ask(m, m.neighbour, "10.64.1.1", "web", patience=0.4) == "silence"


def test_e5_hostname_of_a_container_is_no_name_on_its_network(machine, build):
    front = build.network("front", 1)
    web, evil = build.container("web", front), build.container("evil", front, host=3, spec={"hostname": "db"})
    machine.up(front, web, evil)
    assert ask(machine, web, "10.64.1.1", "evil") == ["10.64.1.3"]
    assert ask(machine, web, "10.64.1.1", "db", patience=1) in NO_ANSWER


def test_replicas_are_one_name_and_each_has_its_own(either_machine, build):
    m = either_machine
    front, back = build.network("front", 1), build.network("back", 2)
    first = build.container("db", front, back, host=5, aliases=("data",))
    second = build.container("db", front, back, host=6, index=2, aliases=("data",))
    asker = build.container("web", front, back, host=9)
    m.up(front, back, first, second, asker)
    both = ["10.64.1.5", "10.64.1.6"]
    everywhere = [*both, "10.64.2.5", "10.64.2.6"]
    answers = {
        name: ask(m, asker, "10.64.1.1", name) for name in ("db", "data", "db.front", "db.back", "db-2", "db-2.back")
    }
    assert answers == {
        "db": everywhere,
        "data": everywhere,
        "db.front": both,
        "db.back": ["10.64.2.5", "10.64.2.6"],
        "db-2": ["10.64.1.6", "10.64.2.6"],
        "db-2.back": ["10.64.2.6"],
    }
    m.down(second)
    assert ask(m, asker, "10.64.1.1", "db.front") == ["10.64.1.5"]
    assert ask(m, asker, "10.64.1.1", "db-2.front", patience=1) in NO_ANSWER


def test_a_published_port_53_leaves_the_resolver_alone(machine, build):
    front = build.network("front", 1)
    web = build.container("web", front, ports={"0.0.0.0:53/udp": 53})
    machine.up(front, web)
    assert ask(machine, web, "10.64.1.1", "web") == ["10.64.1.2"]


def test_e3_no_question_of_an_internal_network_leaves_the_host(machine, build, tmp_path):
    asked = []
    upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    upstream.bind(("127.0.0.9", 53))

    def listen():
        while True:
            data, peer = upstream.recvfrom(2000)
            if data == b"end":
                return
            asked.append(data)
            upstream.sendto(data[:2] + b"\x81\x83" + data[4:], peer)

    listener = threading.Thread(target=listen)
    listener.start()
    machine.stack.callback(upstream.close)
    machine.stack.callback(listener.join)
    machine.stack.callback(upstream.sendto, b"end", ("127.0.0.9", 53))
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.9\n")
    mounts.bind(tmp_path / "resolv.conf", "/etc/resolv.conf")
    front, inner = build.network("front", 1), build.network("inner", 2, internal=True)
    web, db, both = (
        build.container("web", front),
        build.container("db", inner),
        build.container("both", inner, front, host=9),
    )
    machine.up(front, inner, web, db, both)
    assert ask(machine, web, "10.64.1.1", "outside.example") == "no such name"
    assert asked
    asked.clear()
    assert ask(machine, db, "10.64.2.1", "secret.outside.example", patience=1) != []
    assert not asked, "a tunnel by names"
    assert ask(machine, db, "10.64.2.1", "db") == ["10.64.2.2"]
    # Who is on a network that goes out may ask, whichever of his resolvers.
    for gateway in ("10.64.1.1", "10.64.2.1"):
        asked.clear()
        assert ask(machine, both, gateway, "outside.example") == "no such name"
        assert asked
        assert ask(machine, both, gateway, "db") == ["10.64.2.2"]


def test_one_resolver_answers_for_all_networks_of_a_container(machine, build):
    front, back, third = build.network("front", 1), build.network("back", 2), build.network("third", 3)
    web, db, far = build.container("web", front), build.container("db", back), build.container("far", third)
    both = build.container("both", front, back, host=9)
    machine.up(front, back, third, web, db, far, both)
    for gateway in ("10.64.1.1", "10.64.2.1"):
        assert ask(machine, both, gateway, "web") == ["10.64.1.2"]
        assert ask(machine, both, gateway, "db") == ["10.64.2.2"]
        assert ask(machine, both, gateway, "far", patience=1) in NO_ANSWER
    assert ask(machine, web, "10.64.1.1", "db", patience=1) in NO_ANSWER
    assert ask(machine, web, "10.64.1.1", "both") == ["10.64.1.9"], "not its address on a network of others"


def test_name_keeps_answering_while_its_container_is_replaced(machine, build):
    front = build.network("front", 1)
    old = build.container("web", front, incarnation="a" * 12, created_at=1.0)
    new = build.container("web", front, incarnation="b" * 12, created_at=2.0)
    machine.up(front, old)
    machine.up(new)
    assert ask(machine, None, "10.64.1.1", "web") == ["10.64.1.2"]
    machine.down(old)
    assert ask(machine, new, "10.64.1.1", "web") == ["10.64.1.2"]
    assert machine.drift() == {}


def test_second_incarnation_with_an_address_of_its_own_may_ask_and_bears_no_name(machine, build):
    front, inner = build.network("front", 1), build.network("inner", 2, internal=True)
    old = build.container("web", front, incarnation="a" * 12, created_at=1.0)
    new = build.container("web", front, incarnation="b" * 12, host=3, created_at=2.0)
    machine.up(front, inner, old, new)
    assert ask(machine, new, "10.64.1.1", "web") == ["10.64.1.2"]
    machine.down(old)
    assert ask(machine, new, "10.64.1.1", "web") == ["10.64.1.3"]


def test_a_new_name_answers_at_once_after_settle(machine, build):
    front = build.network("front", 1)
    machine.up(front)
    for number in range(5):
        made = build.container(f"c{number}", front, host=10 + number)
        machine.up(made)
        assert ask(machine, None, "10.64.1.1", f"c{number}") == [f"10.64.1.{10 + number}"]


def test_x1_who_died_before_he_told_the_resolver_is_seen_and_the_next_settle_tells_it(machine, build):
    front = build.network("front", 1)
    web = build.container("web", front)
    machine.up(front, web)
    late = build.container("late", front, host=3)
    with (
        failing("engine.native.net.dns.ensure_names/signal=1*raise(EIO)"),
        pytest.raises(Failed, match="tell aardvark-dns"),
    ):
        machine.up(front, web, late)
    assert {name for name in machine.drift() if name.endswith(" names")} == {"network/blog/front names"}
    machine.mend()
    assert machine.drift() == {}
    assert ask(machine, web, "10.64.1.1", "late") == ["10.64.1.3"]


def test_resolver_keeps_no_descriptor_and_no_folder_of_ours(machine, build):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    machine.up(build.network("front", 1))
    pid = dns.find_resolver(machine.layout)
    os.close(write)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b"", "somebody holds the other end"
    os.close(read)
    assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/"
    assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)} == {"/dev/null"}


def test_names_wait_for_a_network_that_is_on_its_way(machine, build):
    front, back = build.network("front", 1), build.network("back", 2)
    machine.mades = {made.key: made for made in (front, back)}
    machine.driver.create(front, uses={}, emit=print)
    settle.settle(machine.layout, machine.view)
    assert sorted(path.name for path in machine.layout.names.iterdir()) == ["aardvark.pid", front.grants.link]


def test_a_resolver_of_the_host_in_the_way_is_named(machine, build, monkeypatch):
    monkeypatch.setattr(dns, "_DEADLINE", 0.5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 53))
        with pytest.raises(ProgramFailed) as failure:
            machine.up(build.network("front", 1))
    assert f"(pid {os.getpid()})" in failure.value.detail
    assert "10.64.1.1:53/udp is held by" in failure.value.detail


@pytest.mark.parametrize("how", ["kill", "file", "line", "first line"])
def test_broken_name_service_is_named_and_mended(machine, build, how):
    front = build.network("front", 1)
    web = build.container("web", front)
    machine.up(front, web)
    assert machine.drift() == {}
    file = machine.layout.names / front.grants.link
    match how:
        case "kill":
            pid = dns.find_resolver(machine.layout)
            os.kill(pid, 9)
            _wait_for_end(pid)
            expected = {"network/blog/front names"}
        case "file":
            file.unlink()
            expected = {"network/blog/front names", "container/blog/web/1 names"}
        case "line":
            file.write_text(file.read_text().splitlines()[0] + "\n")
            expected = {"container/blog/web/1 names"}
        case _:
            file.write_text("10.64.1.9\n" + "\n".join(file.read_text().splitlines()[1:]) + "\n")
            expected = {"network/blog/front names"}
    assert set(machine.drift()) == expected
    settle.settle(machine.layout, machine.view)
    assert machine.drift() == {}
    assert ask(machine, web, "10.64.1.1", "web") == ["10.64.1.2"]


def _wait_for_end(pid):
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_resolver_without_its_pid_file_is_found_and_kept(machine, build):
    front = build.network("front", 1)
    machine.up(front)
    pid = dns.find_resolver(machine.layout)
    (machine.layout.names / "aardvark.pid").unlink()
    machine.up(build.container("web", front))
    assert dns.find_resolver(machine.layout) == pid
    assert ask(machine, None, "10.64.1.1", "web") == ["10.64.1.2"]


def test_last_network_takes_process_files_and_tables_with_it(machine, build):
    front = build.network("front", 1)
    machine.up(front)
    pid = dns.find_resolver(machine.layout)
    machine.down(front)
    assert not dns.find_resolver(machine.layout)
    assert not machine.layout.names.exists()
    _wait_for_end(pid)
    assert list(machine.layout.run.iterdir()) == [machine.neighbour]
    assert make_key(Kind.NETWORK, "blog", "front") not in machine.observe()
