"""`reconcile plan`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.manifests import load_manifests, manifest_options
from reconciler.cli.options import accept_option, opened, output_option, root_option

if TYPE_CHECKING:
    from reconciler.model.key import Key
    from reconciler.model.plan import Plan
    from reconciler.verbs.look import Look
    from reconciler.verbs.root import Root


@click.command(epilog="Example: reconcile plan stack.yaml --why web")
@manifest_options
@click.option("--out", type=click.Path(path_type=Path), help="Save the plan for `reconcile apply FILE`.")
@click.option("--why", metavar="KEY", help="Say why a resource is in the plan, or why it is not.")
@click.option("--resume", is_flag=True, help="Plan as if holds ended.")
@click.option("--prune/--no-prune", default=True, help="Delete what left the manifest.")
@click.option("--take-over", is_flag=True, help="Plan a stack that another manifest owns.")
@accept_option
@output_option("table", "json")
@root_option
@click.pass_context
def plan(
    ctx: click.Context, *, paths: tuple[Path, ...], variables: tuple[str, ...], offline: bool, out: Path | None,
    why: str | None, resume: bool, prune: bool, take_over: bool,
    accept_data_loss: tuple[str, ...], form: str, root: Path | None,
) -> int:  # fmt: skip
    """Show what apply would do, and why. Nothing is changed, nothing is pulled.

    Exit code 0: nothing to do; 2: there are changes.
    """
    from reconciler.cli.render import show, show_json, show_plan_lines
    from reconciler.plan.explain import render_plan
    from reconciler.plan.forms import plan_json
    from reconciler.verbs import plan as verb

    stacks = load_manifests(paths, variables)
    wish = verb.Wish(
        stacks=stacks,
        offline=offline,
        resume=resume,
        prune=prune,
        take_over=take_over,
        ask_tags=not offline,
        accept_loss=frozenset(accept_data_loss),
    )
    with opened(ctx, root) as found:
        made, looked = verb.plan(found, wish, now=time.time())
        if out:
            save(found, made, out)
        if why:
            for line in explain(made, looked, why):
                show(line)
        elif form == "json":
            show_json(plan_json(made))
        else:
            show_plan_lines(render_plan(made))
    return 2 if made.actions else 0


def explain(made: "Plan", looked: "Look", text: str) -> list[str]:
    """The lines of `--why`."""
    from reconciler.plan.explain import explain_key

    key = find_key(made, looked, text)
    return explain_key(made, key, records=looked.records, observation=looked.observation)


def find_key(made: "Plan", looked: "Look", text: str) -> "Key":
    """What a person writes for a resource of the plan: its key, its name, STACK/NAME, KIND/NAME."""
    from reconciler.model.errors import NotFound
    from reconciler.model.key import forms_of, sort_key, split_key

    keys = sorted({*made.specs, *looked.records}, key=sort_key, reverse=True)
    for key in keys:
        if text in forms_of(key):
            return key
    raise NotFound("resource", text, {split_key(key).name for key in keys})


def save(root: "Root", made: "Plan", path: Path) -> None:
    """Write a plan file: 0600, sensitive values sealed with the root's key."""
    from reconciler.model.errors import Failed
    from reconciler.verbs.saved import write_plan

    try:
        write_plan(root, made, path)
    except OSError as error:
        raise Failed(f"{path}: the plan can't be written: {error.strerror}", hint="choose another --out") from error


COMMANDS = {"plan": plan}
