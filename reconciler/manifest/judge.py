"""A manifest's data → what jsonschema, the reference, says of it: the second opinion of `reconcile validate`.

`plan` and `apply` go by `validate.py` alone, whose words have places and suggestions and which costs no import. Where both
disagree, editors and we would take different manifests: a mistake of ours, and told as one.
"""

from collections.abc import Iterator
from typing import Any

from reconciler.manifest.faults import Fault
from reconciler.schema.load import FILES, load_schema


def judge(data: Any) -> Iterator[Fault]:
    """The faults of a document by JSON Schema 2020-12 as jsonschema reads it."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    files = [load_schema(name) for name in FILES]
    registry: Registry[Any] = Registry().with_resources([(file["$id"], Resource.from_contents(file)) for file in files])
    for error in Draft202012Validator(load_schema("stack"), registry=registry).iter_errors(data):
        hint = "jsonschema refuses what reconcile takes: please report it"
        yield Fault(tuple(error.absolute_path), error.message, hint)
