"""Errors as data: `application/problem+json` (RFC 9457) and back into the errors of `model/`, word for word.

`title`, `detail` and `hint` are what a terminal prints; `exit_code` is what a command ends with.
"""

from typing import Any

import msgspec
from msgspec import Struct

from reconciler.model import errors
from reconciler.model.errors import ReconcileError

MEDIA_TYPE = "application/problem+json"
_STATUS = {3: 409, 4: 500, 5: 423, 64: 400, 65: 422}
"""HTTP's status by exit code; of the others 500, or 404 for a name that nothing bears."""


class Question(Struct, frozen=True, kw_only=True):
    """What must be agreed to first."""

    text: str
    token: str
    """Stands for exactly what was shown: what differs by then is asked for anew."""
    lines: tuple[str, ...] = ()
    """To be shown before it."""
    typed: str = ""
    """What must be typed for a yes; empty: y or n."""


class ProblemDetails(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error. `type` is `urn:reconcile:NAME`, its name in docs/api.md."""

    type: str
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    exit_code: int = 1
    problems: tuple[errors.Problem, ...] = ()
    """Of manifests."""
    question: Question | None = None
    code: int = 0
    """What `run` and `exec` end with, where a command did not start."""


class Unanswered(ReconcileError):
    """It needs a yes: the question goes to whoever asked, who asks again with its token."""

    exit_code = 3

    def __init__(self, question: Question) -> None:
        super().__init__(question.text, hint="ask again with the question's token in `agreed`")
        self.question = question


class BadRequest(ReconcileError):
    """A request that is none: refused before anything is looked at."""

    exit_code = 64

    def __init__(self, status: int, brief: str, hint: str = "") -> None:
        super().__init__(brief, hint=hint or "docs/api.md and /v1/openapi.json say what there is")
        self.status = status


def describe_error(error: ReconcileError) -> ProblemDetails:
    """An error of ours as data."""
    return ProblemDetails(
        type=f"urn:reconcile:{type(error).__name__}",
        title=error.brief,
        status=_choose_status(error),
        detail=error.detail,
        hint=error.hint,
        exit_code=error.exit_code,
        problems=error.problems if isinstance(error, errors.BadManifest) else (),
        question=error.question if isinstance(error, Unanswered) else None,
        code=error.code if isinstance(error, errors.ProgramFailed) else 0,
    )


def map_error(error: BaseException) -> ReconcileError:
    """What is none of ours as one of ours; a mistake of ours says so, and no more."""
    if isinstance(error, ReconcileError):
        return error
    refusal = errors.find_refusal(error)
    if refusal is not None:
        return errors.MachineRefused("", refusal)
    return ReconcileError(f"this is a mistake in reconcile: {type(error).__name__}: {error}", hint="please report it")


def _choose_status(error: ReconcileError) -> int:
    if isinstance(error, BadRequest):
        return error.status
    if isinstance(error, errors.NotFound):
        return 404
    return _STATUS.get(error.exit_code, 500)


def revive(problem: ProblemDetails) -> ReconcileError:
    """The error that a problem was: of its class where we know it, with its words and its exit code."""
    if problem.question is not None:
        return Unanswered(problem.question)
    kind: Any = getattr(errors, problem.type.removeprefix("urn:reconcile:"), None)
    if not (isinstance(kind, type) and issubclass(kind, ReconcileError)):
        kind = ReconcileError
    # What an error's own constructor takes are facts that the words were made of.
    error: ReconcileError = kind.__new__(kind)
    ReconcileError.__init__(error, problem.title, problem.detail, problem.hint)
    error.exit_code = problem.exit_code
    if isinstance(error, errors.BadManifest):
        error.problems = problem.problems
    if isinstance(error, errors.ProgramFailed):
        error.code = problem.code
    return error


def read_problem(body: bytes, status: int) -> ReconcileError:
    """The error in the body of a response; of anything else one that says so."""
    try:
        return revive(msgspec.json.decode(body, type=ProblemDetails))
    except msgspec.MsgspecError:
        words = body[:200].decode(errors="replace")
        return errors.Failed(f"the controller answered {status}", words, "look at its log: journalctl -u reconcile")
