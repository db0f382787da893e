"""`reconcile recover`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import lock_option, output_option, root_option, root_path

if TYPE_CHECKING:
    from reconciler.verbs.recover import Report


@click.command(epilog="Example: reconcile recover && reconcile plan stack.yaml")
@lock_option
@output_option("table", "json")
@root_option
@click.pass_context
def recover(ctx: click.Context, *, lock_timeout: float, form: str, root: Path | None) -> int:
    """Rebuild a lost database from what containers, networks and volumes say of themselves, and from what runs.

    Nothing that runs is touched. What can't be known any more is said.
    """
    from reconciler.cli.render import show_json
    from reconciler.verbs.recover import UNKNOWN_NOW
    from reconciler.verbs.recover import recover as verb

    report = verb(root_path(ctx, root), lock_timeout=lock_timeout)
    if form == "json":
        show_json(
            {
                "recovered": [record.key for record in report.records],
                "running": report.running,
                "problems": list(report.problems),
                "strays": [f"{stray.kind} {stray.name}" for stray in report.strays],
                "unknown": list(UNKNOWN_NOW),
            }
        )
    else:
        _show(report, UNKNOWN_NOW)
    return 0


def _show(report: "Report", unknown: tuple[str, ...]) -> None:
    from reconciler.api.look import counted
    from reconciler.cli.render import show
    from reconciler.model.key import kind_of

    counts = Counter(kind_of(record.key).value for record in report.records)
    what = ", ".join(counted(number, kind) for kind, number in counts.items())
    show(f"recovered {what or 'nothing'}; {report.running} running, as before")
    for record in report.records:
        if record.hold:
            show(f"  {record.key} is held: {record.hold.why}")
    for problem in report.problems:
        show(f"  ! {problem}")
    for stray in report.strays:
        show(f"  ! {stray.kind} {stray.name} says of nothing whose it is: the next apply removes it")
    show("not known any more:")
    for text in unknown:
        show(f"  {text}")
    show("look at `reconcile plan` of your manifests before the next apply")


COMMANDS = {"recover": recover}
