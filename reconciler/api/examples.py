"""An example of each request that has a body, for the OpenAPI document; a test sends each of them."""

from reconciler.api import asks, sessions
from reconciler.model.sent import Sent

_BLOG = asks.Manifests(paths=("blog/stack.yaml",), folder="/srv", variables={"TAG": "2"})

_TEXT = b"apiVersion: reconcile/v1\nname: blog\nimages: {redis: {from: docker.io/library/redis:7}}\n"
_SENT = asks.Manifests(
    paths=("stack.yaml",),
    folder="/home/ann/blog",
    files={"/home/ann/blog/stack.yaml": Sent(data=_TEXT)},
    sender="ann@laptop",
)

EXAMPLES: dict[str, asks.Ask] = {
    "plan": asks.Plan(manifests=_SENT),
    "apply": asks.Apply(manifests=_BLOG, yes=True),
    "rollback": asks.Rollback(stack="blog", yes=True),
    "lock": asks.Lock(manifests=_SENT),
    "approve": asks.Approve(source="/etc/reconcile/stacks", stack="blog", yes=True),
    "boot": asks.Boot(wait=False),
    "delete": asks.Delete(what="blog", manifests=asks.Manifests(paths=("blog",)), yes=True),
    "forget": asks.Forget(stack="blog", keep=5),
    "stop": asks.Stop(names=("blog/web",), note="its disk is being replaced"),
    "start": asks.Start(names=("blog/web",)),
    "restart": asks.Restart(names=("blog",)),
    "kill": asks.Kill(names=("blog/web",), signal="HUP"),
    "pause": asks.Pause(names=("blog/web",)),
    "unpause": asks.Unpause(names=("blog/web",)),
    "exec": sessions.Exec(name="blog/web", command=("cat", "/etc/hostname")),
    "attach": sessions.Attach(name="blog/web", stdin=True),
    "run": sessions.Run(image="docker.io/library/busybox:1", command=("env",), env=("A=1",), remove=True),
    "copy-in": sessions.CopyIn(name="blog/web", path="/srv"),
    "pull": asks.Pull(references=("docker.io/library/redis:7",)),
    "remove-image": asks.RemoveImage(image="redis:7"),
    "prune": asks.Prune(dry_run=True),
    "cancel": asks.Cancel(call="4f9c1d"),
}
