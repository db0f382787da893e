"""What libyaml says about text that is no YAML -> what to change. Feeds `text.py`; knows nothing of manifests."""

_CASES = (
    (
        "mapping values are not allowed",
        "a colon where none can be",
        "quote the value that holds it, or mend the indentation",
    ),
    ("could not find expected ':'", "a key without its colon", "write `key: value`"),
    ("did not find expected ',' or", "a comma or the closing bracket is missing", 'quote "${VAR}" between { } and [ ]'),
    (
        "did not find expected '-' indicator",
        "the indentation does not fit the list",
        "put the item's dash below the others",
    ),
    ("did not find expected key", "the indentation does not fit", "put the key below its neighbours"),
    ("unexpected end of stream", "a quote is not closed", ""),
    ("did not find expected node content", "a value is missing, or a bracket is not closed", ""),
    ("nesting depth", "nested too deep", ""),
    (
        "unknown escape character",
        "an escape that YAML has not, in a double-quoted value",
        "use '…', or write \\\\ for a backslash",
    ),
    ("found duplicate anchor", "the anchor is here twice", "give it another name"),
)


def explain_syntax(words: str, *, line: str, column: int) -> tuple[str, str]:
    """The text and the hint for a syntax error, from the parser's words and the line where it stopped (column from 0)."""
    if "\t" in line[: column + 1] and not line[: column + 1].strip():
        return "a tab in the indentation", "YAML is indented with spaces"
    if "cannot start any token" in words:
        sign = line[column : column + 1]
        name = "a tab" if sign == "\t" else f"`{sign}`"
        return f"a value can't begin with {name}", "quote the value" if sign != "\t" else "YAML is indented with spaces"
    for part, text, hint in _CASES:
        if part in words:
            return ("" if "nested" in text else "not YAML: ") + text, hint
    return f"not YAML: {words}", ""
