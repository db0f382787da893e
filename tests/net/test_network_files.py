"""aardvark's files of a view, as text."""

from reconciler.engine.native.net.dns import render_names
from reconciler.model.record import View


def render(*mades, ready=("babcde00000001", "babcde00000002"), pending=(), nameless=()):
    return render_names(View(made=mades, pending=pending, nameless=nameless), ready)


def test_files_of_a_stack(build):
    front, back = build.network("front", 1), build.network("back", 2, internal=True)
    web = build.container("web", front, incarnation="1" * 12, aliases=("www", "WWW", "web"))
    both = build.container("both", front, back, host=9, incarnation="2" * 12)
    db = build.container("db", back, host=3, incarnation="3" * 12)
    assert render(db, both, web, back, front) == {
        "babcde00000001": (
            "10.64.1.1\n"
            "222222222222 10.64.1.9  both,both-1,both.front,both-1.front\n"
            "222222222222 10.64.2.9  _222222222222\n"
            "111111111111 10.64.1.2  web,web-1,web.front,web-1.front,www\n"
        ),
        "babcde00000002": (
            "10.64.2.1\n"
            "222222222222 10.64.2.9  both,both-1,both.back,both-1.back\n"
            "222222222222 10.64.1.9  _222222222222\n"
            "333333333333 10.64.2.3  db,db-1,db.back,db-1.back 127.255.255.255\n"
        ),
    }


def test_stacks_do_not_see_each_others_names(build):
    ours, theirs = build.network("default", 1), build.network("default", 2, stack="shop")
    web = build.container("web", ours, incarnation="1" * 12)
    other = build.container("web", theirs, incarnation="2" * 12, stack="shop")
    found = render(ours, theirs, web, other)
    assert found["babcde00000001"] == "10.64.1.1\n111111111111 10.64.1.2  web,web-1,web.default,web-1.default\n"
    assert found["babcde00000002"] == "10.64.2.1\n222222222222 10.64.2.2  web,web-1,web.default,web-1.default\n"


def test_only_networks_with_their_gateway_have_a_file(build):
    front, back = build.network("front", 1), build.network("back", 2)
    assert set(render(front, back, ready=["babcde00000002"])) == {"babcde00000002"}
    assert set(render(front, back, pending=[back.key])) == {"babcde00000001"}
    assert render(build.network("host", 1, driver="host")) == {}


def test_a_name_that_aardvark_could_not_read_is_left_out(build):
    front = build.network("front", 1)
    web = build.container("web", front, incarnation="1" * 12, aliases=("a b", "x,y", "ü", "-", "", "ok"))
    assert render(front, web) == {
        "babcde00000001": "10.64.1.1\n111111111111 10.64.1.2  web,web-1,web.front,web-1.front,ok\n"
    }


def test_own_resolvers_are_asked_for_names_outside(build):
    front = build.network("front", 1)
    web = build.container("web", front, incarnation="1" * 12, spec={"dns": ("192.0.2.53", "192.0.2.54")})
    assert render(front, web)["babcde00000001"].endswith("web,web-1,web.front,web-1.front 192.0.2.53,192.0.2.54\n")


def test_held_container_has_no_name(build):
    front = build.network("front", 1)
    web = build.container("web", front, incarnation="1" * 12, held=True)
    assert render(front, web) == {"babcde00000001": "10.64.1.1\n"}


def test_of_two_that_run_side_by_side_the_nameless_one_is_only_an_address(build):
    front = build.network("front", 1)
    old = build.container("web", front, incarnation="1" * 12)
    new = build.container("web", front, host=7, incarnation="2" * 12)
    names = "web,web-1,web.front,web-1.front"
    for nameless, lines in {
        "2" * 12: [f"111111111111 10.64.1.2  {names}", "222222222222 10.64.1.7  _222222222222"],
        "1" * 12: ["111111111111 10.64.1.2  _111111111111", f"222222222222 10.64.1.7  {names}"],
    }.items():
        text = render(front, old, new, nameless=(nameless,))["babcde00000001"]
        assert sorted(text.splitlines()[1:]) == lines
