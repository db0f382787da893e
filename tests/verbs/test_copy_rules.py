"""What becomes of a name in `cp`: docker cp's rules as a table."""

import pytest

from reconciler.engine.protocol import FileSeen
from reconciler.model.errors import Failed
from reconciler.verbs.copying import choose_target

FILE, FOLDER = FileSeen(), FileSeen(folder=True)


@pytest.mark.parametrize(
    ("source", "seen", "target", "there", "expected"),
    [
        ("/a/file", FILE, "/b/new", None, ("/b", "new")),
        ("/a/file", FILE, "/b/new/", None, "no such folder"),
        ("/a/file", FILE, "/b/old", FILE, ("/b", "old")),
        ("/a/file", FILE, "/b/old/", FILE, "is no folder"),
        ("/a/file", FILE, "/b", FOLDER, ("/b", "file")),
        ("/a/dir", FOLDER, "/b/new", None, ("/b", "new")),
        ("/a/dir", FOLDER, "/b/new/", None, ("/b", "new")),
        ("/a/dir/.", FOLDER, "/b/new", None, ("/b", "new")),
        ("/a/dir", FOLDER, "/b/old", FILE, "is a file"),
        ("/a/dir", FOLDER, "/b", FOLDER, ("/b", "dir")),
        ("/a/dir/", FOLDER, "/b", FOLDER, ("/b", "dir")),
        ("/a/dir/.", FOLDER, "/b", FOLDER, ("/b", "")),
        (".", FOLDER, "/b", FOLDER, ("/b", "")),
        ("/", FOLDER, "/b", FOLDER, ("/b", "")),
        ("file", FILE, "new", None, ("", "new")),
    ],
)
def test_name_that_a_copy_gets(source, seen, target, there, expected):
    if isinstance(expected, str):
        with pytest.raises(Failed, match=expected):
            choose_target(source, seen, target, there, where="here")
    else:
        assert choose_target(source, seen, target, there, where="here") == expected
