"""Reduce the reason why Elasticsearch rejected a document to a text that is equal for equal errors. Pure.

Elasticsearch names line, column, document and value, so that hardly two reasons are equal, and user-written
values would get into a field that is aggregated. The reduced reason keeps the error type, the field and its
type, and the words of Elasticsearch around them; `…` replaces what may differ.
"""

from __future__ import annotations

import re

# Characters. The longest real ones have some 150.
_MAX_LENGTH = 300
_EXAMINED_LENGTH = 1000

# `[1:234] `: the parser's position in the request.
_POSITION = re.compile(r"\[-?\d+:-?\d+\] ?")
# The value or the document begins here. It may contain anything: quotes, brackets, these words.
_VALUE = re.compile(
    r" in document with id|\.? ?Preview of |\. Could not parse field value| at \[Source|['\"`\n]",
    re.IGNORECASE,
)
# Brackets hold a field or its type if one of these words precedes them, else a value.
_BRACKETS = re.compile(
    r"(?P<before>\b(?:field|Field|type|mapping for|within|due to object field) ?)?\[(?P<inside>[^\]]*)\]?"
)
_NAME = re.compile(r"[A-Za-z_@][\w.@/-]{0,200}")
# A cause that repeats the reason.
_REPEATED_CAUSE = re.compile(r"(?P<reason>\S.*) \((?P=reason)\)$")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
# Causes of Elasticsearch 8 that stand behind the value. A value may contain one of them; its document is then
# counted under that cause.
_CAUSES = (
    "immense term",
    "immense field",
    "exceeds the maximum depth limit",
    "reserved character",
    "failed to parse date field",
    "is before the epoch",
    "Cannot parse object as number",
    "Expected text",
    "expecting token of type [START_OBJECT]",
    "expected an object",
    "as only [true] or [false] are allowed",
    "not of boolean type",
    "not numeric",
    "out of range",
    "only finite values",
    "is greater than max value",
    "not an IP string literal",
    "is a metadata field",
    "Invalid UTF-8",
    "For input string",
)


def generic_reason(error: str) -> str:
    """Return the part of `error` (`type: reason (cause)`) that equal errors have in common."""
    text = _POSITION.sub("", error)
    end = _VALUE.search(text)
    if end is None:
        return _shorten(_without_values(text))
    head, rest = _without_values(text[: end.start()]), text[end.start() :]
    cause = next((words for words in _CAUSES if words in rest), None)
    if cause is not None:
        return _shorten(f"{head}: {cause}")
    # A value follows, unless only a position was cut off.
    return _shorten(head if end[0].lower().startswith((" in document", " at [", "\n")) else f"{head} …")


def _without_values(text: str) -> str:
    text = _NUMBER.sub("…", _BRACKETS.sub(_replace_bracket, text[:_EXAMINED_LENGTH]))
    return _REPEATED_CAUSE.sub(r"\g<reason>", " ".join(text.split())).rstrip(" :(")


def _replace_bracket(found: re.Match[str]) -> str:
    before, inside = found["before"] or "", found["inside"]
    return f"{before}[{inside if before and _NAME.fullmatch(inside) else '…'}]"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…"
