"""`reconcile version`."""

import click

from reconciler import __version__


@click.command(epilog="Example: reconcile version -o json")
@click.option("-o", "--format", "form", type=click.Choice(("table", "json")), default="table", help="Form of the output.")
def version(form: str) -> int:
    """Print the version."""
    click.echo(f'{{"version": "{__version__}"}}' if form == "json" else f"reconcile {__version__}")
    return 0


COMMANDS = {"version": version}
