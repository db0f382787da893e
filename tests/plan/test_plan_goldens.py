"""Plans as people read them: one for every reason and every effect."""

from msgspec.structs import replace

from plan.builders import (
    AA,
    APP,
    BB,
    CACHE,
    DATA,
    FRONT,
    WEB,
    Known,
    container,
    golden,
    stack,
    text,
    volume_at,
)
from reconciler.model.key import container_key
from reconciler.model.observation import Phase, altered, missing
from reconciler.model.record import UNKNOWN, ImageFact
from reconciler.model.spec import Attachment, Dependency, Healthcheck, ImageSpec, NetworkSpec, Resources, Sensitive, Update

web = container(
    networks=("front",),
    ports={"127.0.0.1:8080/tcp": 80},
    env={"LOG": "info"},
    depends_on={"cache": "started"},
)
cache = container(networks=("front",), mounts=volume_at("/data", "data"))
blog = stack(web=web, cache=cache)
alone = stack(web=container())
DB = container_key("blog", "db")


def test_first_apply_creates_all_in_order_of_need():
    assert text(Known().plan(blog)) == golden("""
          1 create   image/blog/app                       because it is new in the manifest
          2 create   network/blog/front                   because it is new in the manifest
          3 create   volume/blog/data                     because it is new in the manifest
          4 create   container/blog/cache/1  after 1-3    because it is new in the manifest
          5 create   container/blog/web/1    after 1,2,4  because it is new in the manifest
              opens 127.0.0.1:8080/tcp -> web:80
        5 actions: 5 create
    """)


def test_second_apply_plans_nothing():
    assert text(Known.of(blog).plan(blog)) == "nothing to do"


def test_changed_variable_replaces_only_its_container():
    plan = Known.of(blog).plan(stack(web=replace(web, env={"LOG": "debug"}), cache=cache))
    assert text(plan) == golden("""
          1 replace  container/blog/web/1  because /env/LOG changed
              /env/LOG  info → debug  (replace)
              discards its writable layer
        1 action: 1 replace
    """)


def test_new_digest_updates_the_image_and_replaces_who_runs_it():
    assert text(Known.of(blog).plan(blog, facts={"app": ImageFact(digest=BB)})) == golden("""
          1 update   image/blog/app                     because /digest changed
              /digest  sha256:aa0000000000 → sha256:bb0000000000  (in-place)
          2 replace  container/blog/cache/1  after 1    because /image changed
              /image  sha256:aa0000000000 → sha256:bb0000000000  (replace)
              discards its writable layer
          3 replace  container/blog/web/1    after 1,2  because /image changed
              /image  sha256:aa0000000000 → sha256:bb0000000000  (replace)
              discards its writable layer
        3 actions: 1 update, 2 replace
    """)


def test_reference_that_can_not_be_asked_for_is_known_after_pull():
    newer = stack(web=container(), images={"app": ImageSpec(reference="registry.test/app:2")})
    fact = ImageFact(digest=UNKNOWN, warning="registry.test: no answer")
    assert text(Known.of(alone).plan(newer, facts={"app": fact})) == golden("""
          1 update   image/blog/app                 because /digest and /reference changed
              /digest  sha256:aa0000000000 → known after pull  (in-place)
              /reference  registry.test/app:1 → registry.test/app:2  (in-place)
          2 replace  container/blog/web/1  after 1  because /image changed
              /image  sha256:aa0000000000 → known after pull  (replace)
              discards its writable layer
          image/blog/app  registry.test: no answer
        2 actions: 1 update, 1 replace
    """)


def test_port_is_opened_and_closed_in_place():
    plan = Known.of(blog).plan(stack(web=replace(web, ports={"0.0.0.0:8081/udp": 80}), cache=cache))
    assert text(plan) == golden("""
          1 update   container/blog/web/1  because /ports/0.0.0.0:8081~1udp and /ports/127.0.0.1:8080~1tcp changed
              /ports/0.0.0.0:8081~1udp  (unset) → 80  (in-place)
              /ports/127.0.0.1:8080~1tcp  80 → (unset)  (in-place)
              closes 127.0.0.1:8080/tcp
              opens 0.0.0.0:8081/udp -> web:80
        1 action: 1 update
    """)


def test_sizes_and_durations_stand_as_people_write_them():
    before = container(resources=Resources(memory=256 * 2**20), stop_grace=10.0)
    after = container(resources=Resources(memory=2**30, cpus=1.5), stop_grace=90.0)
    assert text(Known.of(stack(web=before)).plan(stack(web=after))) == golden("""
          1 update   container/blog/web/1  because /stop_grace, /resources/cpus and /resources/memory changed
              /stop_grace  10s → 1m30s  (in-place)
              /resources/cpus  0.0 → 1.5  (in-place)
              /resources/memory  256M → 1G  (in-place)
        1 action: 1 update
    """)


def test_changed_host_name_restarts():
    assert text(Known.of(alone).plan(stack(web=container(hostname="web", tty=True)))) == golden("""
          1 restart  container/blog/web/1  because /hostname and /tty changed
              /hostname  (unset) → web  (restart)
              /tty  false → true  (restart)
        1 action: 1 restart
    """)


def test_sensitive_values_are_hidden_whatever_happens_to_them():
    before = container(env={"CHANGED": Sensitive("a"), "GONE": Sensitive("b"), "SAME": Sensitive("c"), "TOLD": "d"})
    after = container(
        env={"CHANGED": Sensitive("e"), "NEW": Sensitive("f"), "SAME": Sensitive("c"), "TOLD": Sensitive("g")}
    )
    assert text(Known.of(stack(web=before)).plan(stack(web=after))) == golden("""
          1 replace  container/blog/web/1  because /env/CHANGED, /env/GONE and 2 more changed
              /env/CHANGED  (sensitive) → (sensitive, changed)  (replace)
              /env/GONE  (sensitive) → (unset)  (replace)
              /env/NEW  (unset) → (sensitive)  (replace)
              /env/TOLD  (sensitive) → (sensitive, changed)  (replace)
              discards its writable layer
        1 action: 1 replace
    """)


def test_text_that_could_move_the_cursor_is_written_as_json():
    before = container(env={"A": "x\x1b[2J", "B": "two\nlines"})
    after = container(env={"A": "", "B": " space "}, command=("a", "b\x9bc"))
    assert text(Known.of(stack(web=before)).plan(stack(web=after))) == golden(r"""
          1 replace  container/blog/web/1  because /command, /env/A and /env/B changed
              /command  (unset) → ["a", "b\u009bc"]  (replace)
              /env/A  "x\u001b[2J" → ""  (replace)
              /env/B  "two\nlines" → " space "  (replace)
              discards its writable layer
        1 action: 1 replace
    """)


def test_network_that_is_replaced_takes_its_containers_with_it():
    plan = Known.of(blog).plan(stack(web=web, cache=cache, networks={"front": NetworkSpec(subnet="10.50.0.0/24")}))
    assert text(plan) == golden("""
          1 replace  network/blog/front                 because /subnet changed
              /subnet  (unset) → 10.50.0.0/24  (replace)
              stops and detaches cache, web first
          2 replace  container/blog/cache/1  after 1    because network/blog/front is replaced
              discards its writable layer
              address on front: 10.40.0.2 → one of 10.50.0.0/24
          3 replace  container/blog/web/1    after 1,2  because network/blog/front is replaced
              discards its writable layer
              address on front: 10.40.0.3 → one of 10.50.0.0/24
        3 actions: 3 replace
    """)


def test_what_left_the_manifest_goes_and_its_volume_stays():
    assert text(Known.of(blog).plan(stack(web=replace(web, depends_on={})))) == golden("""
          1 update   container/blog/web/1             because /depends_on/cache changed
              /depends_on/cache  {"condition": "started"} → (unset)  (in-place)
          2 delete   container/blog/cache/1  after 1  because it is no longer in the manifest
              discards its writable layer
          volume/blog/data  kept: no longer in the manifest; `reconcile delete volume/blog/data` removes it
        2 actions: 1 update, 1 delete
    """)


def test_without_prune_what_left_the_manifest_is_told_and_left():
    known = Known.of(stack(web=web, cache=cache, networks={"back": NetworkSpec()}))
    assert text(known.plan(blog, prune=False)) == golden("""
          network/blog/back  left as it is: no longer in the manifest, and --no-prune was given
        nothing to do
    """)


def test_drift_is_mended_by_what_it_takes():
    known = (
        Known.of(blog)
        .drifted(FRONT, bridge=missing(), gateway=altered("address", "10.1.0.1/24", "10.9.9.9/24"))
        .drifted(WEB, monitor=missing("restart"), veth__front=missing())
        .drifted(CACHE, layer=missing("replace"))
    )
    assert text(known.plan(blog)) == golden("""
          1 update   network/blog/front                 because bridge and gateway drifted
              /parts/bridge  missing → present  (in-place)
              /parts/gateway  address 10.9.9.9/24 → address 10.1.0.1/24  (in-place)
          2 replace  container/blog/cache/1  after 1    because layer drifted
              /parts/layer  missing → present  (replace)
              discards its writable layer
          3 restart  container/blog/web/1    after 1,2  because monitor and veth/front drifted
              /parts/monitor  missing → present  (restart)
              /parts/veth~1front  missing → present  (in-place)
        3 actions: 1 update, 1 restart, 1 replace
    """)


def test_what_is_gone_from_the_machine_is_made_again():
    known = Known.of(blog).gone(WEB).gone(FRONT).gone(DATA).gone(APP)
    assert text(known.plan(blog, accept_loss=frozenset({"data"}))) == golden("""
          1 create   image/blog/app                       because it is gone from the machine
          2 create   network/blog/front                   because it is gone from the machine
          3 create   volume/blog/data                     because it is gone from the machine
              its folder is gone: it is made anew, and empty (accepted)
          4 restart  container/blog/cache/1  after 1-3    because volume/blog/data is replaced
          5 create   container/blog/web/1    after 1,2,4  because it is gone from the machine
              opens 127.0.0.1:8080/tcp -> web:80
        5 actions: 4 create, 1 restart
    """)


def test_container_that_ended_is_started_again_by_its_policy():
    known = Known.of(blog).seen(WEB, Phase.EXITED, exit_code=137, oom_killed=True).seen(CACHE, Phase.CREATED)
    assert text(known.plan(blog)) == golden("""
          1 create   container/blog/cache/1           because it does not run
              /parts/process  created → running  (restart)
          2 restart  container/blog/web/1    after 1  because it does not run
              /parts/process  exited (137 SIGKILL, out of memory) → running  (restart)
        2 actions: 1 create, 1 restart
    """)


def test_container_that_gave_up_is_a_line():
    tries = stack(web=container(restart="on-failure:3"))
    known = Known.of(tries).seen(WEB, Phase.EXITED, exit_code=1, gave_up=True, restarts=3)
    assert text(known.plan(tries)) == golden("""
          container/blog/web/1  gave up: exited (1), on-failure:3 is used up; `reconcile start` tries anew
        nothing to do
    """)


def test_held_container_is_a_line_and_who_must_start_can_not():
    known = Known.of(blog).held(CACHE, why="upgrade")
    assert text(known.plan(stack(web=replace(web, env={}), cache=cache))) == golden("""
          1 replace  container/blog/web/1  because /env/LOG changed
              /env/LOG  info → (unset)  (replace)
              can't start while cache, which it depends on, is held
              discards its writable layer
          container/blog/cache/1  held: stop by root 5m ago (upgrade); `reconcile start` or apply --resume ends it
        1 action: 1 replace
    """)


def test_held_container_that_changed_is_replaced_and_stays_stopped():
    plan = Known.of(blog).held(CACHE).plan(stack(web=web, cache=replace(cache, env={"A": "1"})))
    assert text(plan) == golden("""
          1 replace  container/blog/cache/1  because /env/A changed
              /env/A  (unset) → 1  (replace)
              discards its writable layer
              stays stopped by its hold (stop by root)
        1 action: 1 replace
    """)


def test_resume_ends_a_hold():
    assert text(Known.of(blog).held(CACHE).plan(blog, resume=True)) == golden("""
          1 restart  container/blog/cache/1  because its hold is ended
              ends its hold (stop by root)
        1 action: 1 restart
    """)


def test_unfinished_work_is_finished():
    known = Known.of(blog).recorded(WEB, unfinished="restart").recorded(FRONT, unfinished="create").gone(FRONT)
    assert text(known.plan(blog)) == golden("""
          1 create   network/blog/front             because an earlier apply did not finish it
          2 restart  container/blog/web/1  after 1  because an earlier apply did not finish it
        2 actions: 1 create, 1 restart
    """)


def test_volume_that_the_image_declares_is_kept_and_named():
    fact = ImageFact(digest=AA, volumes=("/var/lib/data",), healthcheck=Healthcheck(test=("CMD", "true")))
    assert text(Known().plan(alone, facts={"app": fact})) == golden("""
          1 create   image/blog/app                              because it is new in the manifest
          2 create   volume/blog/web-1@/var/lib/data             because it is new in the manifest
          3 create   container/blog/web/1             after 1,2  because it is new in the manifest
              keeps /var/lib/data in volume web-1@/var/lib/data: a VOLUME of its image that no mount covers
        3 actions: 3 create
    """)


def test_delete_keeps_volumes():
    assert text(Known.of(blog).plan_delete()) == golden("""
          1 delete   container/blog/web/1               because it was asked for
              closes 127.0.0.1:8080/tcp
              discards its writable layer
          2 delete   container/blog/cache/1  after 1    because it was asked for
              discards its writable layer
          3 delete   network/blog/front      after 1,2  because it was asked for
          4 delete   image/blog/app          after 1,2  because it was asked for
          volume/blog/data  kept: --volume data takes it too
        4 actions: 4 delete
    """)


def test_delete_takes_the_volumes_that_are_named():
    assert text(Known.of(blog).seen(DATA, size=3_000_000).plan_delete(volumes=(DATA,))) == golden("""
          1 delete   container/blog/web/1               because it was asked for
              closes 127.0.0.1:8080/tcp
              discards its writable layer
          2 delete   container/blog/cache/1  after 1    because it was asked for
              discards its writable layer
          3 delete   volume/blog/data        after 2    because it was asked for
              deletes its data (3.0 MB)
          4 delete   network/blog/front      after 1,2  because it was asked for
          5 delete   image/blog/app          after 1,2  because it was asked for
        5 actions: 5 delete
    """)


def test_renamed_container_lets_go_of_its_port_before_the_new_one_takes_it():
    plan = Known.of(blog).plan(stack(site=replace(web, ports={"0.0.0.0:8080/tcp": 80}), cache=cache))
    assert text(plan) == golden("""
          1 delete   container/blog/web/1            because it is no longer in the manifest
              closes 127.0.0.1:8080/tcp
              discards its writable layer
          2 create   container/blog/site/1  after 1  because it is new in the manifest
              opens 0.0.0.0:8080/tcp -> site:80
        2 actions: 1 create, 1 delete
    """)


def test_two_that_swap_ports_are_told_apart_by_deleting_one_first():
    one, two = container(ports={"0.0.0.0:1/tcp": 80}), container(ports={"0.0.0.0:2/tcp": 80})
    assert text(Known.of(stack(a=one, b=two)).plan(stack(a=two, b=one))) == golden("""
          1 delete   container/blog/a/1             because /ports/0.0.0.0:1~1tcp and /ports/0.0.0.0:2~1tcp changed
              closes 0.0.0.0:1/tcp
              discards its writable layer
              made again below: it hands a port, an address, a subnet or a volume over to one that hands it another
          2 update   container/blog/b/1  after 1    because /ports/0.0.0.0:1~1tcp and /ports/0.0.0.0:2~1tcp changed
              /ports/0.0.0.0:1~1tcp  (unset) → 80  (in-place)
              /ports/0.0.0.0:2~1tcp  80 → (unset)  (in-place)
              closes 0.0.0.0:2/tcp
              opens 0.0.0.0:1/tcp -> b:80
          3 create   container/blog/a/1  after 1,2  because /ports/0.0.0.0:1~1tcp and /ports/0.0.0.0:2~1tcp changed
              /ports/0.0.0.0:1~1tcp  80 → (unset)  (in-place)
              /ports/0.0.0.0:2~1tcp  (unset) → 80  (in-place)
              opens 0.0.0.0:2/tcp -> a:80
        3 actions: 1 create, 1 update, 1 delete
    """)


def test_renamed_network_keeps_its_subnet_and_its_containers_move():
    fixed = NetworkSpec(subnet="10.50.0.0/24")
    before = stack(web=container(networks=("front",)), networks={"front": fixed})
    after = stack(web=container(networks={"edge": Attachment()}), networks={"edge": fixed})
    assert text(Known.of(before).plan(after)) == golden("""
          1 delete   container/blog/web/1             because /networks/edge and /networks/front changed
              discards its writable layer
              made again below: it hands a port, an address, a subnet or a volume over to one that hands it another
          2 delete   network/blog/front    after 1    because it is no longer in the manifest
          3 create   network/blog/edge     after 2    because it is new in the manifest
          4 create   container/blog/web/1  after 1,3  because /networks/edge and /networks/front changed
              /networks/edge  (unset) → {}  (replace)
              /networks/front  {} → (unset)  (replace)
        4 actions: 2 create, 2 delete
    """)


def test_two_stacks_are_planned_together():
    shop = stack("shop", origin="name:shop", web=container())
    assert text(Known.of(alone).plan(alone, shop)) == golden("""
          1 create   image/shop/app                 because it is new in the manifest
          2 create   container/shop/web/1  after 1  because it is new in the manifest
        2 actions: 2 create
    """)


def test_replace_that_starts_first_says_so():
    first = replace(alone.specs[WEB], networks={"front": Attachment()}, update=Update(order="start-first"))
    plan = Known.of(stack(web=first)).plan(stack(web=replace(first, env={"LOG": "debug"})))
    assert [action.order for action in plan.actions] == ["start-first"]
    assert text(plan) == golden("""
          1 replace  container/blog/web/1  because /env/LOG changed
              /env/LOG  (unset) → debug  (replace)
              starts the new one first, with another address; its names move once it is seen
              discards its writable layer
        1 action: 1 replace
    """)


def test_another_way_of_replacing_changes_nothing_that_runs():
    plan = Known.of(alone).plan(stack(web=container(update=Update(order="start-first", on_failure="rollback"))))
    assert text(plan) == "nothing to do"


def test_what_is_held_or_does_not_run_is_not_started_first():
    first = container(update=Update(order="start-first"))
    other = stack(web=replace(first, command=("b",)))
    known = Known.of(stack(web=first))
    assert [action.order for action in known.held(WEB).plan(other).actions] == [""]
    assert [action.order for action in known.seen(WEB, Phase.EXITED, exit_code=1).plan(other).actions] == [""]


def follower(**fields):
    return container(depends_on={"db": Dependency(condition="started", restart=True)}, **fields)


def test_replaced_container_restarts_only_who_says_so():
    trio = {"web": follower(), "cache": container(depends_on={"db": "started"})}
    plan = Known.of(stack(db=container(), **trio)).plan(stack(db=container(command=("b",)), **trio))
    assert text(plan) == golden("""
          1 replace  container/blog/db/1            because /command changed
              /command  (unset) → ["b"]  (replace)
              discards its writable layer
          2 restart  container/blog/web/1  after 1  because it asks to follow db, which is started anew
        2 actions: 1 restart, 1 replace
    """)


def test_who_follows_a_follower_is_restarted_after_it():
    third = container(depends_on={"web": Dependency(condition="started", restart=True)})
    known = Known.of(stack(db=container(), web=follower(), third=third)).seen(DB, Phase.EXITED, exit_code=1)
    plan = known.plan(stack(db=container(), web=follower(labels={"a": "b"}), third=third))
    assert text(plan) == golden("""
          1 restart  container/blog/db/1              because it does not run
              /parts/process  exited (1) → running  (restart)
          2 restart  container/blog/web/1    after 1  because it asks to follow db, which is started anew
              /labels/a  (unset) → b  (in-place)
          3 restart  container/blog/third/1  after 2  because it asks to follow web, which is started anew
        3 actions: 3 restart
    """)


def test_who_is_replaced_or_held_or_new_is_not_restarted():
    db, other = stack(db=container(), web=follower()), stack(db=container(command=("b",)), web=follower(command=("b",)))
    assert [action.verb.value for action in Known.of(db).plan(other).actions] == ["replace", "replace"]
    held = Known.of(db).held(WEB).plan(stack(db=container(command=("b",)), web=follower()))
    assert [action.key for action in held.actions] == [DB]
    new = Known.of(stack(db=container())).plan(stack(db=container(command=("b",)), web=follower()))
    assert [action.verb.value for action in new.actions] == ["replace", "create"]


def test_updated_dependency_restarts_nobody():
    plan = Known.of(stack(db=container(), web=follower())).plan(stack(db=container(labels={"a": "b"}), web=follower()))
    assert [action.key for action in plan.actions] == [DB]
