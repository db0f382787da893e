"""Runs commands for tests in a process that has imported everything, each in a child of its own: `python warm.py`.

A line of JSON comes in for each command (arguments, environment, names of the files for its streams), a line with its
exit code goes out. What depends on a start of its own (imports, pipes, terminals, signals) is tested without this.
"""

import json
import os
import sys
from importlib import import_module

from reconciler.cli import main

LATER = ("sqlalchemy", "reconciler.verbs.apply", "reconciler.verbs.observe", "reconciler.engine.native.engine")


def serve() -> None:
    """Answer until nobody asks any more."""
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for module in {module for module, _ in main.COMMANDS.values()}:
        import_module(f"reconciler.cli.{module}")
    for module in LATER:
        import_module(module)
    for line in asked:
        child = os.fork()
        if child == 0:
            os._exit(_run(json.loads(line)))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.write(f"{code}\n")
        answers.flush()


def _run(request: dict[str, object]) -> int:
    streams = request["streams"]
    assert isinstance(streams, list)
    for number, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]  # it is a mapping
    try:
        code = main.run(list(request["arguments"]))  # type: ignore[call-overload]  # it is a list
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
