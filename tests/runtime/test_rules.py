"""What follows an exit, health and signals, as pure rules; and JSON as json has it."""

import json
import os
import signal
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine.native.runtime import etc, health, policy, status
from reconciler.engine.native.runtime.smalljson import parse_json, render_json
from reconciler.model.observation import Health
from reconciler.model.signals import parse_signal
from reconciler.model.spec import ContainerSpec, Healthcheck


@given(attempts=st.integers(0, 10_000))
def test_pause_doubles_up_to_a_minute(attempts: int) -> None:
    pause = policy.choose_pause(attempts)
    assert pause == (0 if attempts == 0 else min(60.0, 0.1 * 2 ** min(attempts - 1, 30)))


@given(code=st.integers(0, 255), restarts=st.integers(0, 10), most=st.integers(1, 10))
def test_on_failure_restarts_at_most_so_often(code: int, restarts: int, most: int) -> None:
    verdict = policy.choose_after_exit(policy.Policy(restart=f"on-failure:{most}", restarts=restarts), code=code)
    assert (verdict == policy.STAY) == (code == 0)
    assert (verdict == policy.AGAIN) == (code != 0 and restarts < most)


@given(code=st.integers(0, 255), restarts=st.integers(0, 100_000))
def test_always_never_gives_up_and_no_never_restarts(code: int, restarts: int) -> None:
    assert policy.choose_after_exit(policy.Policy(restart="always", restarts=restarts), code=code) == policy.AGAIN
    assert policy.choose_after_exit(policy.Policy(restart="no", restarts=restarts), code=code) == policy.STAY


def test_steady_run_makes_the_next_restart_the_first_again() -> None:
    rules = policy.Policy(attempts=7)
    policy.count_exit(rules, ran=9.9, uptime=100.0)
    assert rules.attempts == 7
    policy.count_exit(rules, ran=10.0, uptime=120.0)
    assert rules.attempts == 0
    assert rules.ends == [[100.0, 9.9], [120.0, 10.0]]
    for uptime in range(121, 130):
        policy.count_exit(rules, ran=0.5, uptime=uptime)
    assert rules.ends == [[uptime, 0.5] for uptime in range(125, 130)]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=60)
@given(_JSON)
def test_small_json_is_what_json_reads_and_writes(value: object) -> None:
    assert json.loads(render_json(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", ["", "{", '{"a":1} x', "nope", '{"a":}', "\x00"])
def test_small_json_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own subclass is one
        parse_json(text.encode())


CHECK = Healthcheck(test=("CMD", "x"), interval=5.0, timeout=3.0, retries=2, start_period=10.0)


def judge(*, at: float = 100.0, now: float = 101.0, streak: int = 0, was_healthy: bool = True, pid: int = 7) -> Health:
    result = {"pid": 7, "at": at, "streak": streak, "was_healthy": was_healthy, "text": ""}
    return health.choose_health(CHECK, result, pid=pid, now=now)


def test_health_is_the_last_result_while_it_is_fresh() -> None:
    assert judge() is Health.HEALTHY
    assert judge(streak=1) is Health.HEALTHY
    assert judge(streak=2) is Health.UNHEALTHY
    assert judge(now=111.0) is Health.UNKNOWN
    assert judge(now=99.0) is Health.UNKNOWN, "nothing is from the future"
    assert judge(pid=8) is Health.UNKNOWN
    assert judge(streak=1, was_healthy=False) is Health.STARTING
    assert judge(streak=2, was_healthy=False) is Health.UNHEALTHY
    assert health.choose_health(CHECK, {}, pid=7, now=0.0) is Health.UNKNOWN
    assert health.choose_health(None, {}, pid=7, now=0.0) is Health.NONE


def test_images_health_check_holds_where_the_manifest_has_none() -> None:
    image = {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000, "Retries": 5}
    assert health.choose_check(None, image) == Healthcheck(test=("CMD-SHELL", "true"), interval=2.0, retries=5)
    assert health.choose_check(CHECK, image) == CHECK
    assert health.choose_check(Healthcheck(test=("NONE",)), image) is None
    for odd in (None, {}, {"Test": "x"}, {"Test": []}, {"Test": ["NONE"]}, "x"):
        assert health.choose_check(None, odd) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("RTMAX-1", signal.SIGRTMAX - 1)],
)
def test_signals_are_known_by_name_and_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "RTMIN-1", "RTMIN+99", "-9", "9; reboot", "²"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no signal"):
        parse_signal(text)


def test_hosts_name_the_container_at_each_address() -> None:
    around = etc.Surroundings(hostname="web", addresses=("10.0.0.2", "10.1.0.2"), gateways=("10.0.0.1",))
    text = etc.render_hosts(around, {"db": "10.9.9.9", "up": "host-gateway"})
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("10.0.0.2\tweb\n10.1.0.2\tweb\n10.9.9.9\tdb\n10.0.0.1\tup\n")


def test_resolver_on_a_bridge_is_only_our_own() -> None:
    around = etc.Surroundings(hostname="web", gateways=("10.0.0.1",), host_resolv="search lan\nnameserver 127.0.0.53\n")
    assert etc.render_resolv(around, servers=("9.9.9.9",), search=()) == (
        "search lan\nnameserver 10.0.0.1\noptions ndots:0\n"
    )


def test_resolver_off_a_bridge_is_the_hosts_with_what_is_given_first() -> None:
    around = etc.Surroundings(hostname="web", host_resolv="search lan\nnameserver 1.1.1.1\noptions edns0\n")
    assert etc.render_resolv(around, servers=(), search=()) == around.host_resolv
    assert etc.render_resolv(around, servers=("9.9.9.9",), search=("x.org",)) == (
        "search x.org\nnameserver 9.9.9.9\noptions edns0\n"
    )


def test_process_that_ended_just_now_is_missed_by_no_cgroup() -> None:
    """It was taken for drift."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert status._read_cgroup("/x", ContainerSpec(image="app"), ended.pid) == {}
    assert status._read_cgroup("/x", ContainerSpec(image="app"), os.getpid()).keys() >= {"cgroup"}
