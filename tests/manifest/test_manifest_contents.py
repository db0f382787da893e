"""Configs, secrets and bound files: what a manifest may say of them, and what it is told otherwise."""

from pathlib import Path

import pytest
from manifest_reading import HEAD, body, brief, read, specs, told, web

from reconciler.model.key import Kind, make_key
from reconciler.model.record import Source
from reconciler.model.spec import UNREAD, ConfigSpec, FileMount, SecretSpec, Sensitive

BESIDE = "configs: {app: {content: a}}\nsecrets: {token: {env: T}}\n"
SET = {"T": "t", "LEVEL": "info"}


def test_specs_know_no_source_and_sources_no_digest(tmp_path: Path):
    (tmp_path / "token").write_text("t")
    text = 'configs: {a: {content: "x"}, b: {content: "l=${LEVEL}"}}\nsecrets: {t: {file: ./token}, u: {env: T}}\n'
    stack = read(HEAD + text + "volumes: {v: }", variables=SET, folder=tmp_path)
    assert stack.specs[make_key(Kind.CONFIG, "s", "a")] == ConfigSpec()
    assert stack.specs[make_key(Kind.SECRET, "s", "t")] == SecretSpec()
    assert stack.sources == {
        "config/s/a": Source(value=Sensitive("x"), path="configs.a.content"),
        "config/s/b": Source(value=Sensitive("l=info"), guessable=True, path="configs.b.content"),
        "secret/s/t": Source(file=str(tmp_path / "token"), path="secrets.t.file"),
        "secret/s/u": Source(value=Sensitive("t"), path="secrets.u.env"),
    }


def test_short_form_goes_to_the_usual_place_with_the_usual_mode():
    spec = web("configs: [app]\nsecrets: [token]", around=BESIDE, variables=SET)
    assert spec.configs == {"/app": FileMount(source="app", mode=0o444)}
    assert spec.secrets == {"/run/secrets/token": FileMount(source="token", mode=0o400)}


def test_long_form_is_that_of_compose():
    spec = web(
        """
        configs: [{source: app, target: /etc/app.toml, uid: "103", gid: 104, mode: 0440, on_change: restart}]
        secrets:
          - {source: token, target: key, mode: "0o400", on_change: nothing, signal: hup}
        """.replace("hup", "HUP"),
        around=BESIDE,
        variables=SET,
    )
    assert spec.configs == {"/etc/app.toml": FileMount(source="app", uid=103, gid=104, mode=0o440, on_change="restart")}
    wanted = FileMount(source="token", mode=0o400, on_change="nothing", signal="SIGHUP")
    assert spec.secrets == {"/run/secrets/key": wanted}


@pytest.mark.parametrize(
    ("mount", "digest"),
    [
        ("./motd:/etc/motd:ro", UNREAD),
        ("../motd:/etc/motd:ro", UNREAD),
        ("./motd:/etc/motd", ""),
        ("/srv/motd:/etc/motd:ro", ""),
    ],
)
def test_only_what_is_bound_read_only_from_beside_the_manifest_may_be_kept(mount: str, digest: str):
    assert web(f"mounts: ['{mount}']").mounts["/etc/motd"].digest == digest


FAULTS = {
    "configs: {a: {}}": "1:11 configs.a: a config needs a source",
    "configs: {a: }": "1:11 configs.a: found nothing; expected a map with `file` or `content`",
    "configs: {a: {external: true}}": "1:15 configs.a.external: unknown key",
    "configs: {a: {content: x, file: y}}": "1:11 configs.a: a config comes from one place",
    "configs: {a: {file: ./no}}": "1:21 configs.a.file: no such file: /nonexistent/folder/no",
    "secrets: {a: {file: /}}": "1:21 secrets.a.file: / is no regular file",
    "secrets: {a: {env: NOPE}}": "1:20 secrets.a.env: the variable NOPE is not set",
    "secrets: {a: {env: 'A B'}}": '1:20 secrets.a.env: found "A B"; expected a variable\'s name',
    "secrets: {a: {content: x}}": "1:15 secrets.a.content: unknown key",
    "containers: {w: {image: a/b:1, configs: [a]}}": "1:42 containers.w.configs[0]: no config named a",
    "containers: {w: {image: a/b:1, secrets: a}}": '1:41 containers.w.secrets: found "a"; expected a list of names',
}


@pytest.mark.parametrize("text", FAULTS)
def test_each_fault_is_told_once_at_its_place(text: str):
    found = brief(text)
    assert len(found) == 1, found
    assert found[0].startswith(FAULTS[text]), found[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{source: app, target: /etc/x/../y}", 'found ".." in the target'),
        ("{source: app, target: etc}", 'found "etc"; expected an absolute path'),
        ("{source: app, target: /data}", "a second mount at /data"),
        ("{source: app, signal: HUP}", "a signal is only sent where the container goes on"),
        ("{source: app, mode: 999}", "expected permission bits"),
        ("{source: app, on_change: reload}", "expected replace, restart or nothing"),
        ("{target: /x}", "source is missing"),
    ],
)
def test_what_a_container_says_wrong_of_a_file_is_told(entry: str, words: str):
    around = "configs: {app: {content: a}}\nvolumes: {data: }\n"
    text = body(f"{around}containers:\n  w: {{image: a/b:1, mounts: ['data:/data'], configs: [{entry}]}}\n")
    assert words in told(text)


def test_words_of_compose_get_their_counterpart():
    text = body("configs: {a: {environment: X}}\nsecrets: {a: {environment: X}, b: {external: true}}\n")
    said = told(text)
    assert "write content: ${NAME}" in said
    assert "did you mean env?" in said
    assert "nothing lives outside of a stack here" in said


def test_too_large_a_file_or_text_is_told(tmp_path: Path):
    (tmp_path / "big").write_bytes(b"x" * (1 << 20 | 1))
    text = HEAD + f"configs: {{a: {{file: {tmp_path}/big}}, b: {{content: {'ä' * 600_000}}}}}\n"
    said = told(text)
    assert "has 1,048,577 bytes; at most 1 MiB is kept" in said
    assert "found 1,200,000 bytes; a config has at most 1 MiB" in said


def test_value_of_a_variable_is_in_no_error():
    said = told(
        body("secrets: {a: {env: T, file: x}}\nconfigs: {b: {content: 'p=${T}', file: x}}\n"), variables={"T": "planted"}
    )
    assert "planted" not in said


def test_name_of_a_config_may_be_a_secrets_too():
    found = specs("configs: {a: {content: x}}\nsecrets: {a: {env: T}}\nvolumes: {v: }\n", variables=SET)
    assert {"config/s/a", "secret/s/a"} <= found.keys()
