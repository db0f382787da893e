"""`driver_opts` and `size` of volumes as written, and as meant."""

import pytest
from manifest_reading import brief, specs

from reconciler.model.key import Key
from reconciler.model.spec import Sensitive, VolumeSpec


def volume(written: str, **variables: str) -> VolumeSpec:
    spec = specs(f"volumes: {{v: {written}}}\ncontainers: {{w: {{image: a/b:1}}}}\n", variables=variables)[
        Key("volume/s/v")
    ]
    assert isinstance(spec, VolumeSpec)
    return spec


def test_options_are_kept_as_written():
    found = volume("{driver_opts: {type: nfs, o: 'addr=10.0.0.5,rw', device: ':/x'}}").driver_opts
    assert found == {"type": "nfs", "o": "addr=10.0.0.5,rw", "device": ":/x"}


@pytest.mark.parametrize("o", ["username=u,password=p", "pass=p", "ro, password2=p", "passwd=p", "credentials=/x"])
def test_options_with_a_password_are_sensitive(o: str):
    assert volume(f"{{driver_opts: {{type: cifs, device: //h/s, o: '{o}'}}}}").driver_opts["o"] == Sensitive(o)


def test_what_comes_from_a_variable_is_sensitive():
    found = volume("{driver_opts: {type: cifs, device: //h/s, o: 'username=${U}'}}", U="me").driver_opts
    assert found["o"] == Sensitive("username=me")


def test_size_is_in_bytes():
    assert volume("{size: 10M}").size == 10 << 20


FAULTS = {
    "{driver_opts: {type: nfs}}": "volumes.v.driver_opts: nfs needs a device",
    "{driver_opts: {device: x}}": "volumes.v.driver_opts: type is missing",
    "{driver_opts: {type: none, device: /x}}": "volumes.v.driver_opts: none is for a folder of the machine, with `o: bind`",
    "{driver_opts: {type: ext4, o: bind, device: /x}}": "volumes.v.driver_opts.type: found ext4 with `o: bind`",
    "{driver_opts: {type: none, o: bind, device: ./x}}": "volumes.v.driver_opts.device: found ./x; expected an absolute",
    "{driver_opts: {type: tmpfs}, size: 5M}": "volumes.v.size: `size` is for folders of the root",
    "{size: 5}": "volumes.v.size: found 5; expected at least 1M",
}


@pytest.mark.parametrize("text", FAULTS)
def test_faults(text: str):
    found = brief(f"volumes: {{v: {text}}}")
    assert len(found) == 1, found
    assert FAULTS[text] in found[0]
