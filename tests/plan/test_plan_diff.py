"""Field changes: pointers, values, effects."""

from hypothesis import given
from hypothesis import strategies as st

from plan.builders import AA, BB, container
from reconciler.model.key import Kind
from reconciler.model.plan import Change, Effect
from reconciler.model.record import UNKNOWN
from reconciler.model.spec import Attachment, ContainerSpec, ImageSpec, Mount, NetworkSpec, Sensitive
from reconciler.plan.diff import diff_digest, diff_specs, pointer_names, pointer_step, show_value, strongest
from reconciler.schema.load import change_effect


def changes(old: ContainerSpec, new: ContainerSpec) -> list[tuple[str, object, object, str]]:
    found = diff_specs(Kind.CONTAINER, old, new, effect_of=change_effect)
    return [(change.path, change.old, change.new, change.effect.value) for change in found]


def test_equal_specs_have_no_change():
    assert changes(container(env={"A": "1"}), container(env={"A": "1"})) == []


def test_maps_are_compared_by_key_and_lists_as_a_whole():
    old = container(command=("a", "b"), env={"A": "1", "B": "2"})
    new = container(command=("a", "c"), env={"B": "3", "C": "4"})
    assert changes(old, new) == [
        ("/command", ["a", "b"], ["a", "c"], "replace"),
        ("/env/A", "1", None, "replace"),
        ("/env/B", "2", "3", "replace"),
        ("/env/C", None, "4", "replace"),
    ]


def test_structs_within_are_compared_field_by_field_and_come_and_go_whole():
    old = container(networks={"a": Attachment(), "b": Attachment(ipv4="10.0.0.2")})
    new = container(networks={"a": Attachment(aliases=("x",)), "c": Attachment(ipv4="10.0.0.3")})
    assert changes(old, new) == [
        ("/networks/a/aliases", [], ["x"], "in-place"),
        ("/networks/b", {"ipv4": "10.0.0.2"}, None, "replace"),
        ("/networks/c", None, {"ipv4": "10.0.0.3"}, "replace"),
    ]


def test_slash_and_tilde_in_a_name_are_escaped():
    old = container(labels={"a/b~c": "1"}, mounts={"/data": Mount(type="volume", source="d")})
    assert [change[0] for change in changes(old, container())] == ["/labels/a~1b~0c", "/mounts/~1data"]


def test_name_of_the_image_is_no_change_for_the_digest_counts():
    assert changes(container("app"), container("redis")) == []


def test_sensitive_values_compare_by_value():
    assert changes(container(env={"A": Sensitive("x")}), container(env={"A": Sensitive("x")})) == []
    assert changes(container(env={"A": "x"}), container(env={"A": Sensitive("x")})) == []


def test_no_sensitive_value_reaches_a_change():
    old = container(env={"A": "was-plain", "B": Sensitive("hidden-1"), "C": Sensitive("hidden-2")})
    new = container(env={"A": Sensitive("hidden-3"), "B": "now-plain", "D": Sensitive("hidden-4")})
    shown = repr(changes(old, new))
    assert all(word not in shown for word in ("hidden", "was-plain", "now-plain"))
    assert "(sensitive, changed)" in shown


def test_shown_value_hides_sensitive_ones_at_any_depth():
    assert show_value({"a": [Sensitive("x")], "b": container(env={"E": Sensitive("y")})}) == {
        "a": ["(sensitive)"],
        "b": {"image": "app", "env": {"E": "(sensitive)"}},
    }


def test_digest_stands_at_image_of_containers_and_digest_of_images():
    assert diff_digest(Kind.CONTAINER, AA, BB, effect_of=change_effect) == (
        Change(path="/image", old=AA, new=BB, effect=Effect.REPLACE),
    )
    assert diff_digest(Kind.IMAGE, AA, UNKNOWN, effect_of=change_effect) == (
        Change(path="/digest", old=AA, new="known after pull", effect=Effect.IN_PLACE),
    )


def test_digest_that_neither_side_knows_is_no_change():
    assert diff_digest(Kind.CONTAINER, "", UNKNOWN, effect_of=change_effect) == ()
    assert diff_digest(Kind.CONTAINER, AA, AA, effect_of=change_effect) == ()


def test_effects_are_those_of_the_schemas():
    pull = diff_specs(
        Kind.IMAGE, ImageSpec(reference="a"), ImageSpec(reference="a", pull="always"), effect_of=change_effect
    )
    icc = diff_specs(Kind.NETWORK, NetworkSpec(), NetworkSpec(icc=False, mtu=1400), effect_of=change_effect)
    assert [change.effect for change in (*pull, *icc)] == [Effect.IGNORE, Effect.IN_PLACE, Effect.REPLACE]


def test_strongest_effect_wins():
    def change(effect: Effect) -> Change:
        return Change(path="/x", old=1, new=2, effect=effect)

    assert strongest(()) is Effect.IGNORE
    assert strongest((change(Effect.RESTART), change(Effect.IN_PLACE))) is Effect.RESTART
    assert strongest((change(Effect.REPLACE), change(Effect.REFUSE), change(Effect.IGNORE))) is Effect.REFUSE


@given(st.lists(st.text(min_size=1, max_size=12)))
def test_pointer_names_are_what_was_escaped(names: list[str]):
    assert pointer_names("".join(map(pointer_step, names))) == tuple(names)


texts = st.dictionaries(st.sampled_from(["A", "B", "C/d", "~"]), st.text(max_size=3), max_size=3)


@given(texts, texts)
def test_changes_say_exactly_what_differs(old: dict[str, str], new: dict[str, str]):
    found = changes(container(labels=old), container(labels=new))
    patched = dict(old)
    for path, before, after, _ in found:
        (_, name) = pointer_names(path)
        assert patched.get(name) == before
        if after is None:
            del patched[name]
        else:
            patched[name] = str(after)
    assert patched == new
