"""`--allow WHAT` of `reconcile serve`: what `allow:` of a source says in a configuration."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from reconciler.plan.allow import Allow

_SWITCHES = ("everything", "privileged", "host_network", "low_ports")
_LISTS = ("host_paths", "devices", "ports", "registries")
WORDS = ", ".join([*_SWITCHES, "nothing", *(f"{name}=VALUE" for name in _LISTS)])

allow_option = click.option(
    "--allow", "allowed", multiple=True, metavar="WHAT", help=f"What manifests may ask for: {WORDS}."
)


def read_allow(words: tuple[str, ...]) -> "Allow | None":
    """What all of them say together; None without one. Raises Usage."""
    if not words:
        return None
    from reconciler.plan.allow import Allow, read_ports

    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.replace("-", "_", word.partition("=")[0].count("-")).partition("=")
        if name in _SWITCHES and not equals:
            given[name] = True
        elif name in _LISTS and value:
            given[name] = (*given.get(name, ()), _read_value(name, value, read_ports))
        elif word != "nothing":
            raise click.UsageError(f"--allow {word}: expected one of {WORDS}")
    return Allow(**given)


def _read_value(name: str, value: str, read_ports: Any) -> Any:
    if name == "ports":
        try:
            return read_ports(value)
        except ValueError as error:
            raise click.UsageError(f"--allow ports={value}: {error}") from None
    if name in ("host_paths", "devices") and not value.startswith("/"):
        raise click.UsageError(f"--allow {name}={value}: expected an absolute path")
    return value
