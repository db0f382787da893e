"""Tells what is wrong, once, and once that it is over: in the log, in the event log, to people outside.

What it is about is a word and a name, `broken /etc/stacks`, `stack blog`, `health container/blog/web/1`; `targets.py` says
which kind of notification each word is.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from reconciler.controller.targets import name_kind
from reconciler.model.errors import LockTimeout, ReconcileError
from reconciler.model.events import AnyEvent, Note
from reconciler.verbs.audit import find_causes
from reconciler.verbs.record import Recorder
from reconciler.verbs.root import Root

Announce = Callable[[str, str, str, str], None]
"""Tells people outside: the kind of it, about what, the words, the stack."""


class Teller:
    """What one controller has told, and does not say again."""

    def __init__(self, root: Root, tell: Callable[[AnyEvent], None], announce: Announce) -> None:
        self._root = root
        self._tell = tell
        self._announce = announce
        self._lock = threading.Lock()
        self._told: dict[str, str] = {}

    def forget(self, *prefixes: str) -> None:
        """Nobody asks any more about what begins so."""
        with self._lock:
            self._told = {about: words for about, words in self._told.items() if not about.startswith(prefixes)}

    @contextmanager
    def telling(self, key: str, stack: str) -> Iterator[None]:
        """Tell what a look at a key raises, and raise it."""
        try:
            yield
        except LockTimeout:  # Somebody is at work on it by hand: he is not in the way, we are.
            raise
        except ReconcileError as error:
            self.say(key, f"{key}: {all_words(error)}", stack, short=f"{key}: {brief_words(error)}")
            raise
        except Exception as error:
            self.say(key, f"{key}: a mistake of ours: {type(error).__name__}: {error}", stack)
            raise
        self.say(key, "", stack, over=f"{key}: well again")

    def say_all(
        self,
        prefix: str,
        words: Mapping[str, str],
        *,
        over: Callable[[str], str],
        stack_of: Callable[[str], str] = lambda _: "",
        short: Callable[[str], str] = lambda _: "",
    ) -> None:
        """Tell of all things of one kind, by name; of those that were told before and are no more, that it is over."""
        with self._lock:
            before = [about.removeprefix(prefix) for about in self._told if about.startswith(prefix)]
        for name in dict.fromkeys([*words, *before]):
            self.say(f"{prefix}{name}", words.get(name, ""), stack_of(name), over=over(name), short=short(name))

    def say(self, about: str, words: str, stack: str = "", *, over: str = "", short: str = "") -> None:
        """Tell it once, and with the words of `over`, if there are any, when there is nothing to tell any more. People
        outside are told `short`, or the first line: logs and manifests, of which the rest may quote, are not theirs."""
        with self._lock:
            before = self._told.get(about, "")
            if before == words:
                return
            self._told[about] = words
            if not words:
                del self._told[about]
        if not words and not over:
            return
        self.note(words or over, stack, level="warning" if words else "info")
        if kind := name_kind(about, over=not words):
            self._announce(kind, about, (short if words else "") or (words or over).partition("\n")[0], stack)

    def note(self, words: str, stack: str = "", *, level: str = "info") -> None:
        """Tell something that happened."""
        # A full disk, a busy database: the log has it all the same, and whoever works must go on.
        with suppress(ReconcileError), Recorder(self._root, self._tell, [stack] if stack else []) as told:
            told(Note(text=words, level=level))


def brief_words(error: ReconcileError) -> str:
    """The same in one line, without what logs and programs said."""
    return "; ".join([error.brief, *(cause.brief for cause in find_causes(error))])


def all_words(error: ReconcileError) -> str:
    """What happened, why with the log's last lines, what to do next."""
    lines = [f"{cause.brief}\n{cause.detail}".strip() for cause in find_causes(error)]
    lines = lines or ([error.detail] if error.detail else [])
    return "\n".join([error.brief, *lines, *([f"hint: {error.hint}"] if error.hint else [])])
