"""The driver of containers: a record and its grants become a bundle, a root, links and a process, and back.

Order of a creation: root mount, namespace and links (down), bundle; then links up and the process. Of a removal: process,
links, mounts, writable layer, bundle last. What is a process is runtime/'s, what is a mount snapshots/' and volumes/', what
is a link net/'s; here they are called in order. Knows no plan, no database, and no other driver.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import structs

from reconciler.engine.contents import keep_nothing
from reconciler.engine.native import mounting
from reconciler.engine.native.content.images import read_image
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net import veth
from reconciler.engine.native.net.insides import Insides
from reconciler.engine.native.refusals import telling
from reconciler.engine.native.runtime import bundle, contents, lifecycle, limits, policy, status, writing
from reconciler.engine.native.runtime.ended import ended_path
from reconciler.engine.native.runtime.inside import rotate_log
from reconciler.engine.native.runtime.known import Known, Read
from reconciler.engine.native.runtime.monitor import cgroup_parent, cgroup_path, monitors_path
from reconciler.engine.native.snapshots import stack
from reconciler.engine.protocol import LocalImage, ReadContent, Uses
from reconciler.linux import cgroups, files, mounts, namespaces, process
from reconciler.model.errors import Failed, ReconcileError, words_of
from reconciler.model.events import Emit
from reconciler.model.key import Key, Kind, is_incarnation, kind_of
from reconciler.model.observation import Phase, Status, Stray
from reconciler.model.record import ApplyId, Made, View
from reconciler.model.signals import TERM, parse_signal
from reconciler.model.spec import ContainerSpec

_LIVE = (Phase.RUNNING, Phase.PAUSED)


@telling(
    "prepare", "premake", "start", "stop", "update", "unmark", "pause", "unpause", "delete", states="look at containers"
)
class ContainerDriver:
    """Containers of one root."""

    def __init__(self, layout: Layout, read_content: ReadContent = keep_nothing) -> None:
        self.layout = layout
        self.read_content = read_content
        # As text: both are asked for several times of each container by each look.
        self._bundles, self._containers = str(layout.bundles), str(layout.containers)
        self._known, self._insides = Known(), Insides()
        self._premade: dict[str, tuple[Made, dict[str, Any]]] = {}
        """What the runtime has made and nobody has begun, by incarnation: as what, and its state."""

    # ------------------------------------------------------------ making

    def prepare(self, made: Made, *, uses: Uses, emit: Emit) -> None:
        """Everything but running; an existing bundle is brought to the spec. Raises Failed, ProgramMissing."""
        if self._is_premade(made) and self._is_whole(made):
            veth.prepare_links(self.layout, made, uses)
            return
        image = self._mount_root(made)
        veth.prepare_links(self.layout, made, uses)
        self._write(made, uses, image)

    def premake(self, made: Made, *, uses: Uses) -> None:
        """The root, a namespace without links, the bundle, and runtime create under the monitor."""
        image = self._mount_root(made)
        veth.prepare_namespace(self.layout, made, uses)
        self._write(made, uses, image)
        path = self._bundle(made)
        with lifecycle.locked(path, made.key, doing="make"):
            self._premade[made.incarnation] = (made, lifecycle.create(path, made.key))

    def _is_premade(self, made: Made) -> bool:
        """Whether it was made beforehand, exactly as this."""
        return self._premade.get(made.incarnation, (None,))[0] == made

    def _mount_root(self, made: Made) -> LocalImage:
        image = read_image(self.layout, made.image)
        stack.mount_root(self.layout, made.incarnation, _diff_ids(image))
        return image

    def _write(self, made: Made, uses: Uses, image: LocalImage) -> None:
        path = self._bundle(made)
        sources = mounting.prepare_sources(self.layout, path, made, uses)
        with lifecycle.locked(path, made.key, doing="prepare"):
            contents.write_files(path, made, self.read_content)
            writing.write_bundle(
                self.layout, made, image.config, _surroundings(made, uses), sources, mounting.read_options(made, uses)
            )

    def start(
        self,
        made: Made,
        *,
        uses: Uses,
        created: Callable[[], None] | None = None,
        ready: Callable[[], None] | None = None,
        old: Made | None = None,
    ) -> Status:
        """Links up, runtime create under the monitor, runtime start. Raises ProgramFailed with the runtime's words."""
        if not self._is_whole(made):
            self.prepare(made, uses=uses, emit=_say_nothing)
        path = self._bundle(made)
        with lifecycle.locked(path, made.key, doing="start"):
            as_what, premade = self._premade.pop(made.incarnation, (None, None))
            if as_what != made:
                premade = None
            try:
                if old is None:
                    veth.raise_links(self.layout, made, uses)
                    return lifecycle.run(path, made.key, created, ready, premade)
                veth.ready_links(self.layout, made)
                return lifecycle.run(path, made.key, created, self._take_over(made, uses, ready, old))
            except BaseException:
                veth.lower_links(self.layout, made)
                raise

    def _take_over(self, made: Made, uses: Uses, ready: Callable[[], None] | None, old: Made) -> Callable[[], None]:
        def work() -> None:
            if ready is not None:
                ready()
            veth.take_over_links(self.layout, made, uses, old=old)

        return work

    def _is_whole(self, made: Made) -> bool:
        """Whether nothing is missing that a start needs: root, namespace and bundle."""
        path = self._bundle(made)
        if not writing.is_complete(path) or not mounts.is_mount_point(f"{path}/{bundle.ROOTFS}"):
            return False
        netns = writing.read_netns(path)
        return not netns or namespaces.is_kept(netns)

    # ------------------------------------------------------------ changing

    def stop(self, made: Made, *, mark: str, apply: ApplyId, grace: float | None = None) -> Status:
        """Mark, signal, wait, kill, links down; each under the container's lock."""
        path = self._bundle(made)
        self._premade.pop(made.incarnation, None)
        if not writing.is_complete(path):
            self._end_lost(made)
            return self._read_status(made)
        self._end_unrecorded(made)
        number, patience = _ending(made, path)
        with lifecycle.locked(path, made.key, doing="stop"):
            now = lifecycle.halt(path, mark=mark, apply=apply, number=number, grace=patience if grace is None else grace)
            if mark != policy.REPLACED:  # its successor takes them over, or it runs again itself
                veth.lower_links(self.layout, made)
        return now

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """The bundle and what runs brought to `new` with the pid kept; what is missing around it is mended."""
        image = read_image(self.layout, new.image)
        path = self._bundle(new)
        stack.mount_root(self.layout, new.incarnation, _diff_ids(image))
        sources = mounting.prepare_sources(self.layout, path, new, uses)
        with lifecycle.locked(path, new.key, doing="update"):
            now = status.read_status(path, new.incarnation)
            changed = contents.write_files(path, new, self.read_content)
            writing.write_bundle(
                self.layout, new, image.config, _surroundings(new, uses), sources, mounting.read_options(new, uses)
            )
            if now.phase in _LIVE:
                veth.mend_links(self.layout, new, uses, pid=now.pid)
                limits.ensure_limits(path, new, pid=now.pid)
                lifecycle.follow(path)
                # Order: after the files, which are what it looks at when it is sent one.
                for number in sorted(contents.choose_signals(old, new, changed)):
                    lifecycle.send(path, number)
                if not new.paused:
                    lifecycle.thaw(path, new.key, now)
            else:
                veth.prepare_links(self.layout, new, uses)
        rotate_log(path)
        return status.read_status(path, new.incarnation)

    def measure(self, made: Made) -> int:
        """Bytes that it wrote, by walking them; 0 where it is not there."""
        return stack.writable_size(self.layout, made.incarnation)

    def unmark(self, made: Made) -> None:
        """Take a mark off. Does not start it; one whose bundle is gone bears none."""
        path = self._bundle(made)
        if not writing.is_complete(path):
            return
        with lifecycle.locked(path, made.key, doing="unmark"):
            lifecycle.unmark(path)

    def pause(self, made: Made) -> Status:
        """Mark it and freeze what runs."""
        path = self._bundle(made)
        with lifecycle.locked(path, made.key, doing="pause"):
            return lifecycle.pause(path, made.key)

    def unpause(self, made: Made) -> Status:
        """Let it go on. One whose bundle is gone is not paused."""
        path = self._bundle(made)
        if not writing.is_complete(path):
            return status.read_status(path, made.incarnation)
        with lifecycle.locked(path, made.key, doing="unpause"):
            return lifecycle.unpause(path, made.key)

    def delete(self, made: Made) -> None:
        """Stop it if it runs, remove everything of this incarnation, its bundle last. What is gone is no error."""
        self._premade.pop(made.incarnation, None)
        path = self._bundle(made)
        if writing.is_complete(path):
            self._end_unrecorded(made)
            number, grace = _ending(made, path)
            lifecycle.end(path, key=made.key, apply=_this_process(), number=number, grace=grace)
        else:
            self._end_lost(made)
        veth.remove_links(self.layout, made)
        self._remove(made.incarnation)

    def _end_unrecorded(self, made: Made) -> None:
        """End what runs though the record of its run is gone: by its cgroup, for nobody knows its pid."""
        unrecorded = not bundle.read_json(self._bundle(made), bundle.STATE)
        if unrecorded and cgroups.list_processes(cgroup_path(self.layout, made.incarnation)):
            self._end_lost(made)

    def _end_lost(self, made: Made) -> None:
        lifecycle.end_without_bundle(
            cgroup_path(self.layout, made.incarnation),
            monitors_path(self.layout),
            made.incarnation,
            str(self.layout.runc),
        )

    def _remove(self, incarnation: str) -> None:
        """What is left of an incarnation once nothing of it runs. Order: the bundle last, for it says what was here."""
        path = str(self.layout.bundles / incarnation)
        stack.unmount_root(self.layout, incarnation)
        writing.unpin(path)
        stack.remove_writable(self.layout, incarnation)
        try:
            files.remove_tree(self.layout.containers / incarnation)
            files.remove_tree(path)
        except OSError as error:
            words = words_of(error)
            raise Failed(f"container {incarnation}: remove its files: {words}", hint="see what is mounted in it") from error
        self._remove_last_cgroup()

    def _remove_last_cgroup(self) -> None:
        """The root's own cgroup goes with the last container."""
        with contextlib.suppress(OSError):
            if any(self.layout.bundles.iterdir()):
                return
        # An exit command may be on its way out of it: 20 ms of Python, seconds where everything is slow.
        cgroups.remove(monitors_path(self.layout), seconds=10.0)
        cgroups.remove_if_empty(cgroup_parent(self.layout))

    def close(self) -> None:
        """Let go of what looks are made with."""
        self._insides.close()

    # ------------------------------------------------------------ looking

    def states(self, mades: Sequence[Made]) -> Mapping[str, Status]:
        """By incarnation: phase, pid, exit and restarts of each, without parts."""
        return {made.incarnation: self._read_status(made) for made in mades}

    def _read_status(self, made: Made, read: Read = bundle.read_json) -> Status:
        kept = ended_path(f"{self._containers}/{made.incarnation}")
        return status.read_status(self._bundle(made), made.incarnation, kept=kept, read=read)

    def observe(
        self, mades: Sequence[Made], glimpse: Glimpse, *, networks: Uses
    ) -> tuple[dict[Key, Status], dict[str, Status]]:
        """Statuses with their parts: by key that of the incarnation which runs, and by incarnation the other of two."""
        read = cache(self._known.read)  # Of one look there is one answer: status and parts are asked for both.
        found = {made.incarnation: self._read_status(made, read) for made in mades}
        there = [made for made in mades if self._is_there(made, found[made.incarnation])]
        links = veth.observe_links(self.layout, there, glimpse, networks=networks, insides=self._insides)
        roots = stack.observe_roots(self.layout, self._read_layers(there), glimpse)
        statuses: dict[Key, Status] = {}
        others: dict[str, Status] = {}
        for made in mades:
            now = found[made.incarnation]
            if made.incarnation in roots:
                parts = status.read_parts(self._bundle(made), made, now, read)
                parts |= {"mount": roots[made.incarnation]} | contents.read_part(self._bundle(made), _spec(made))
                own = veth.choose_parts(links.get(made.incarnation, {}), runs=now.phase in _LIVE)
                now = structs.replace(now, parts=parts | own)
            first = statuses.setdefault(made.key, now)
            if first is not now:
                runs = now.phase in _LIVE and first.phase not in _LIVE
                statuses[made.key], other = (now, first) if runs else (first, now)
                others[other.incarnation] = other
        return statuses, others

    def _is_there(self, made: Made, now: Status) -> bool:
        """Whether there is something of it to look at: of one that had ended before a reboot there is only its end."""
        return now.phase is not Phase.MISSING and (now.phase in _LIVE or os.path.isdir(self._bundle(made)))  # noqa: PTH112

    def _read_layers(self, mades: Sequence[Made]) -> dict[str, tuple[str, ...]]:
        by_image: dict[str, tuple[str, ...]] = {}
        for digest in {made.image for made in mades}:
            try:
                by_image[digest] = _diff_ids(read_image(self.layout, digest))
            except ReconcileError:  # The image's own status says what is wrong with it.
                by_image[digest] = ()
        return {made.incarnation: by_image[made.image] for made in mades}

    def strays(self, view: View, glimpse: Glimpse) -> list[Stray]:
        """What bears this root's id and belongs to no container of the view: bundles, cgroups, mounts, folders."""
        known = {made.incarnation for made in view.made if kind_of(made.key) is Kind.CONTAINER}
        self._known.forget_others(known)
        self._insides.forget_others(known)
        if not self.layout.root_id:
            return []
        found = [
            Stray(kind="bundle", name=name)
            for name in _list(self.layout.bundles)
            if name not in known and not name.startswith(files.STAGING)
        ]
        parent = cgroup_parent(self.layout)
        inside = cgroups.list_children(parent)
        found += [Stray(kind="cgroup", name=name) for name in sorted(filter(is_incarnation, inside - known))]
        # Who removed the last container may have died between two hierarchies.
        if not known and not found and inside <= {"monitors"} and cgroups.exists(parent):
            found.append(Stray(kind="cgroup", name="monitors"))
        return found + stack.strays(self.layout, view, glimpse)

    def remove_stray(self, stray: Stray) -> None:
        """Remove one of `strays`, and with a bundle or a cgroup all of its incarnation."""
        if stray.kind == "cgroup" and stray.name == "monitors":
            cgroups.kill(monitors_path(self.layout), seconds=5.0)
            self._remove_last_cgroup()
        elif stray.kind in ("bundle", "cgroup"):
            lost = Made(key=Key(f"container/{stray.name}/stray/1"), spec=ContainerSpec(image=""), incarnation=stray.name)
            self._end_lost(lost)
            veth.remove_links(self.layout, lost)
            self._remove(stray.name)
        else:
            stack.remove_stray(self.layout, stray)

    def _bundle(self, made: Made) -> str:
        return f"{self._bundles}/{made.incarnation}"


def _spec(made: Made) -> ContainerSpec:
    assert isinstance(made.spec, ContainerSpec)
    return made.spec


def _diff_ids(image: LocalImage) -> tuple[str, ...]:
    rootfs: Any = image.config.get("rootfs") or {}
    return tuple(rootfs.get("diff_ids") or ())


def _surroundings(made: Made, uses: Uses) -> writing.Network:
    networks = [uses[key] for name in sorted(_spec(made).networks) if (key := veth.network_key(made, name)) in uses]
    return writing.Network(
        on_host=veth.shares_host(made, uses),
        addresses=tuple(endpoint.address for _, endpoint in sorted(made.grants.endpoints.items())),
        gateways=tuple(network.grants.gateway for network in networks if network.grants.gateway),
    )


def _ending(made: Made, path: str) -> tuple[int, float]:
    """The signal that asks it to end, the manifest's or the image's, and how many seconds it has."""
    name = _spec(made).stop_signal or writing.read_stop_signal(path)
    try:
        return parse_signal(name) if name else TERM, _spec(made).stop_grace
    except ValueError:  # An image may say anything.
        return TERM, _spec(made).stop_grace


def _list(folder: Any) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are what is wanted
    except FileNotFoundError:
        return []


def _this_process() -> ApplyId:
    pid = os.getpid()
    return ApplyId(pid=pid, start_time=process.read_start_time(pid), boot_id=process.read_boot_id())


def _say_nothing(_: object) -> None:
    """An emit for what a start has to make up for."""
