"""What a change of each property means: the table is written out, so that a change of the schemas is a change here too."""

import pytest

from reconciler.model.key import Kind
from reconciler.model.plan import Effect
from reconciler.model.spec import SPEC_TYPES
from reconciler.schema.load import change_effect

CONTAINER = {
    "in-place": (
        "labels stop_signal stop_grace restart ports resources depends_on healthcheck logs extra_hosts"
        " networks/front/aliases resources/memory healthcheck/interval logs/keep ports/0.0.0.0:80~1tcp"
    ),
    "restart": "hostname tty stdin init cap_add cap_drop ulimits shm_size dns dns_search ulimits/nofile",
    "replace": (
        "image command entrypoint env env/A workdir user read_only job remove networks networks/front networks/front/ipv4"
        " mounts mounts/~1data mounts/~1data/read_only runtime sysctls"
        " configs configs/~1app secrets secrets/~1run~1secrets~1token"
    ),
    "ignore": (
        "env_file env_file/0 update update/order update/on_failure"
        " configs/~1app/source secrets/~1x/on_change secrets/~1x/signal"
    ),
}
OTHERS = {
    Kind.IMAGE: {"in-place": "reference archive", "ignore": "pull"},
    Kind.NETWORK: {"replace": "driver subnet gateway internal mtu", "in-place": "icc labels labels/team"},
    Kind.VOLUME: {"refuse": "driver driver_opts driver_opts/o", "in-place": "labels access size", "ignore": "moved"},
    Kind.CONFIG: {"in-place": "digest"},
    Kind.SECRET: {"in-place": "digest"},
}
TABLE = [
    (kind, f"/{pointer}", effect)
    for kind, effects in {Kind.CONTAINER: CONTAINER, **OTHERS}.items()
    for effect, pointers in effects.items()
    for pointer in pointers.split()
]


@pytest.mark.parametrize(("kind", "pointer", "effect"), TABLE)
def test_change_of_each_property_means_what_its_schema_says(kind: Kind, pointer: str, effect: str):
    assert change_effect(kind, pointer) is Effect(effect)


@pytest.mark.parametrize("kind", Kind)
def test_every_field_of_a_spec_is_in_the_table(kind: Kind):
    named = {pointer.split("/")[1] for of_kind, pointer, _ in TABLE if of_kind is kind}
    assert named == set(SPEC_TYPES[kind].__struct_fields__)
