"""The configuration file of a controller: what it says, what is wrong with it and where, what a reload does with it."""

from pathlib import Path

import pytest

from controller.conftest import MANIFEST, Controlled
from reconciler.controller.policy import Policy, SourceRules
from reconciler.controller.serve import open_sources
from reconciler.controller.settings import HookOptions, MetricsOptions, Settings, WatchOptions, read_settings
from reconciler.controller.sources.directory import DirectorySource
from reconciler.controller.sources.git import GitOptions
from reconciler.controller.sources.gitplace import parse_place
from reconciler.controller.sources.gitrun import Access, Bounds
from reconciler.model.errors import BadManifest
from reconciler.model.key import container_key
from reconciler.model.observation import missing
from reconciler.plan.allow import Allow
from reconciler.plan.mending import DriftRule
from reconciler.store.events import Retention

HEAD = "apiVersion: reconcile/v1\nsources:\n  - watch: /etc/stacks\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "serve.yaml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(BadManifest) as caught:
        read_settings(written(folder, text))
    return [f"{each.line}:{each.column} {each.path}: {each.text}" for each in caught.value.problems]


def test_least_that_a_file_says_is_a_folder(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, HEAD))
    assert settings == Settings(
        sources=(WatchOptions(folder=Path("/etc/stacks")),), policy=Policy(sources={"/etc/stacks": SourceRules()})
    )


def test_webhook_of_others_or_without_a_secret_is_refused(tmp_path: Path) -> None:
    text = f"{HEAD}webhook: {{listen: '10.0.0.1:80', secret_file: {tmp_path}/none}}\n"
    found = problems(tmp_path, text)
    assert any("webhook.listen: 10.0.0.1 is no loopback address" in each for each in found)
    assert any("can't be read: No such file" in each for each in found)


def test_all_of_it(tmp_path: Path) -> None:
    text = (
        HEAD
        + """\
    vars: {TAG: 1.10, LOUD: true}
    prune: true
    max_delete: 2
  - watch: /srv/more
  - git: https://git.example/stacks.git
    branch: main
    path: prod
    interval: 1m
    credentials: /etc/token
    verify: /etc/signers
    max_size: 500M
    allow: {low_ports: true, ports: [443, 8000-8100], host_paths: [/srv]}
drift: {default: warn, stacks: {shop: heal, blog: {parts: {limits: heal}}}}
resync: 10m
poll: 5
timeout: 1m30s
workers: 8
listen: unix:///run/reconcile/api.sock
events: {keep: 500, age: 14d, size: 2M}
metrics: {listen: "[::1]:9323", containers: 50}
webhook: {listen: "localhost:9324", secret_file: SECRET}
"""
    )
    secret = tmp_path / "secret"
    secret.write_text("a secret of sixteen or more")
    secret.chmod(0o600)
    settings = read_settings(written(tmp_path, text.replace("SECRET", str(secret))))
    assert settings.webhook == HookOptions(listen=("127.0.0.1", 9324), secret_file=secret)
    assert settings.sources[0].variables == {"TAG": "1.10", "LOUD": "true"}
    assert settings.sources[2] == GitOptions(
        place=parse_place("https://git.example/stacks.git"),
        ref="refs/heads/main",
        folder="prod",
        interval=60.0,
        access=Access(credentials=Path("/etc/token")),
        bounds=Bounds(size=500 * 1024**2),
        allowed_signers=Path("/etc/signers"),
        allow=Allow(low_ports=True, ports=((443, 443), (8000, 8100)), host_paths=("/srv",)),
    )
    policy = settings.policy
    assert policy.source_rules("/etc/stacks") == SourceRules(prune=True, max_delete=2)
    assert policy.source_rules("/srv/more") == SourceRules()
    assert policy.drift_rule("shop") == DriftRule(heal=True)
    assert policy.drift_rule("blog") == DriftRule(heal=False, parts={"limits": True})
    assert policy.drift_rule("other") == DriftRule(heal=False)
    assert (policy.resync, policy.poll, policy.timeout, settings.workers) == (600.0, 5.0, 90.0, 8)
    assert settings.metrics == MetricsOptions(listen=("::1", 9323), containers=50)
    assert settings.listen == Path("/run/reconcile/api.sock")
    assert settings.events == Retention(keep=500, age=14 * 86400.0, size=2 * 1024**2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + "    prun: true\n", "4:5 sources[0].prun: unknown key"),
        (HEAD + "resync: soon\n", "4:9 resync: 'soon' is no duration; write 5s, 1m30s or 500ms"),
        (HEAD + "poll: 10ms\n", "4:7 poll: found 10ms; expected at least 1 s"),
        (HEAD + "drift: heel\n", '4:8 drift: found "heel"; expected heal or warn'),
        (HEAD + "  - watch: /etc/./stacks\n", "4:12 sources[1].watch: /etc/stacks is served already"),
        (HEAD + "  - watch: stacks\n", '4:12 sources[1].watch: found "stacks"; expected an absolute path'),
        (HEAD + "  - {prune: true}\n", "4:5 sources[1]: the source says nothing of where it is"),
        (HEAD + "    git: https://h/x\n", "3:5 sources[0]: the source is a folder and a repository"),
        (HEAD + "    branch: main\n", "4:5 sources[0].branch: is for repositories"),
        (HEAD + "  - git: https://u:p@h/x\n", "4:10 sources[1].git: the URL of h holds a name or password"),
        (HEAD + "  - {git: ext::sh, branch: main}\n", "4:11 sources[1].git: ext::sh: no repository's URL"),
        (HEAD + "  - {git: 'https://h/x', ssh_key: /k}\n", "4:26 sources[1].ssh_key: is for ssh"),
        (HEAD + "  - {git: 'https://h/x', branch: -x}\n", "4:34 sources[1].branch: branch '-x': no name that git allows"),
        (HEAD + "  - {git: 'https://h/x', path: ../..}\n", "4:32 sources[1].path: '../..': expected a folder"),
        (HEAD + "  - {git: 'https://h/x', allow: {ports: [9-1]}}\n", "4:42 sources[1].allow.ports[0]: found 9-1"),
        (HEAD + "    vars: {TAG: '${TAG}'}\n", "4:17 sources[0].vars.TAG: the variable TAG is not set"),
        ("apiVersion: reconcile/v1\nsources: []\n", "2:10 sources: found an empty list; expected a list of sources"),
        (HEAD + "metrics: {listen: 0.0.0.0:9323}\n", "4:19 metrics.listen: 0.0.0.0 is no loopback address"),
        (HEAD + "metrics: {listen: 127.0.0.1:99999}\n", "4:19 metrics.listen: found 127.0.0.1:99999"),
        ("", "0:0 : the file is empty"),
        ("a: [", "1:5 : not YAML: a value is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    assert any(one.startswith(told) for one in problems(tmp_path, text)), problems(tmp_path, text)


def test_file_within_the_reach_of_others_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD)
    path.chmod(0o666)
    with pytest.raises(BadManifest) as caught:
        read_settings(path)
    assert "others may write to it (owner 0, mode 0666)" in caught.value.detail
    for odd in (tmp_path, tmp_path / "gone.yaml"):
        with pytest.raises(BadManifest):
            read_settings(odd)


def renewed(controlled: Controlled, *folders: Path, **policy: object) -> None:
    """What SIGHUP does with a file that names these folders."""
    settings = Settings(
        sources=tuple(WatchOptions(folder=each) for each in folders),
        policy=Policy(**policy),  # type: ignore[arg-type]
    )
    controlled.keeper.reload(open_sources(controlled.root.path, settings, controlled.keeper.sources), settings.policy)
    for name in controlled.keeper.sources:
        controlled.queue.renew(f"source {name}", controlled.now)


def test_source_that_is_taken_out_leaves_its_stacks_and_one_that_is_added_brings_its_own(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    other = controlled.folder.parent / "more"
    other.mkdir()
    (other / "shop.yaml").write_text(MANIFEST.format(name="shop", image="box:1", command="s"))
    controlled.notes()
    renewed(controlled, other, prune=True)
    controlled.run(3)
    assert controlled.commands() == {"blog": "a", "shop": "s"}
    told = controlled.notes()
    assert f"{controlled.folder} is not served any more; what runs stays, and is mended as it is recorded: blog" in told
    controlled.machine.vanish(container_key("blog", "web"))
    controlled.run(controlled.policy.resync + 2)
    assert controlled.commands() == {"blog": "a", "shop": "s"}
    controlled.write("blog", command="b")
    renewed(controlled, other, controlled.folder)
    controlled.run(3)
    assert controlled.commands() == {"blog": "b", "shop": "s"}
    assert f"{controlled.folder} is served again" in controlled.notes()


def test_source_with_other_variables_keeps_the_last_version_of_what_they_make_invalid(tmp_path: Path) -> None:
    for name in ("blog", "shop"):
        (tmp_path / f"{name}.yaml").write_text(MANIFEST.format(name=name, image="box:${TAG}", command="a"))
    settings = Settings(sources=(WatchOptions(folder=tmp_path, variables={"TAG": "1"}),))
    [source] = open_sources(tmp_path, settings)
    first = source.read()
    assert isinstance(source, DirectorySource)
    settings = Settings(sources=(WatchOptions(folder=tmp_path, variables={"TAG": "2"}),))
    [again] = open_sources(tmp_path, settings, {source.name: source})
    assert again is source
    second = again.read()
    assert first.versions["blog"].token != second.versions["blog"].token
    source.use({}, lambda _: None)
    third = source.read()
    assert third.problems.keys() == {"blog.yaml", "shop.yaml"}
    assert {name: version.token for name, version in third.versions.items()} == {
        name: version.token for name, version in second.versions.items()
    }
    assert [version.invalid for version in third.versions.values()] == ["blog.yaml", "shop.yaml"]


def test_drift_of_parts_that_are_only_told_is_left_and_the_rest_is_mended(open_controlled) -> None:
    rule = DriftRule(heal=True, parts={"limits": False})
    controlled = open_controlled(drift={"blog": rule})
    for name in ("blog", "shop"):
        controlled.write(name)
    controlled.run(3)
    controlled.notes()
    for name in ("blog", "shop"):
        controlled.machine.drift(container_key(name, "web"), "limits/memory", missing())
    controlled.run(controlled.policy.resync + 2)
    states = {name: "limits/memory" in drifted(controlled, name) for name in ("blog", "shop")}
    assert states == {"blog": True, "shop": False}
    assert "stack blog drifted, which is told only (apply: update container/blog/web/1)" in controlled.notes()
    controlled.machine.drift(container_key("blog", "web"), "mount", missing())
    controlled.run(controlled.policy.resync + 2)
    assert drifted(controlled, "blog") == set()
    assert "stack blog has no drift any more" in controlled.notes()


def drifted(controlled: Controlled, stack: str) -> set[str]:
    [thing] = controlled.machine.find(container_key(stack, "web"))
    return {name for name, part in thing.parts.items() if part.state != "present"}


def test_example_is_right(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "systemd" / "serve.yaml"
    found = read_settings(written(tmp_path, example.read_text()))
    assert found.policy.drift_rule("lab") == DriftRule(heal=False)
