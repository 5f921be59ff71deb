"""Why Elasticsearch rejected a document, in words that are equal for equal faults. Pure.

Its reasons name line, column, document and value, so that hardly two are equal, and what people wrote would
stand in a field that is counted. What is kept is the type of the error, the field and its type, and the words
of Elasticsearch around them; `…` stands for whatever may differ.
"""

from __future__ import annotations

import re

# Characters. The longest real ones have some 150.
_MAX = 300
_LOOKED_AT = 1000

# `[1:234] `, where in the request the parser was.
_POSITION = re.compile(r"\[-?\d+:-?\d+\] ?")
# From here on there is the value or the document, which may hold anything: quotes, brackets, these words.
_VALUE = re.compile(
    r" in document with id|\.? ?Preview of |\. Could not parse field value| at \[Source|['\"`\n]",
    re.IGNORECASE,
)
# In brackets: a field or its type where one of these words comes before, else somebody's value.
_BRACKETS = re.compile(
    r"(?P<before>\b(?:field|Field|type|mapping for|within|due to object field) ?)?\[(?P<inside>[^\]]*)\]?"
)
_NAME = re.compile(r"[A-Za-z_@][\w.@/-]{0,200}")
# A cause that only says the reason again.
_TWICE = re.compile(r"(?P<said>\S.*) \((?P=said)\)$")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
# What the cause says behind the value, in the words of Elasticsearch 8. A value may hold them, and so have
# its document counted under another one of these.
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


def bare_reason(error: str) -> str:
    """The part of `error` (`type: reason (cause)`) that equal faults have in common."""
    text = _POSITION.sub("", error)
    end = _VALUE.search(text)
    if end is None:
        return _cut(_plain(text))
    head, rest = _plain(text[: end.start()]), text[end.start() :]
    cause = next((words for words in _CAUSES if words in rest), None)
    if cause is not None:
        return _cut(f"{head}: {cause}")
    # The text goes on with a value, unless what is left out is only where it was.
    return _cut(head if end[0].lower().startswith((" in document", " at [", "\n")) else f"{head} …")


def _plain(text: str) -> str:
    text = _NUMBER.sub("…", _BRACKETS.sub(_bracket, text[:_LOOKED_AT]))
    return _TWICE.sub(r"\g<said>", " ".join(text.split())).rstrip(" :(")


def _bracket(found: re.Match[str]) -> str:
    before, inside = found["before"] or "", found["inside"]
    return f"{before}[{inside if before and _NAME.fullmatch(inside) else '…'}]"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX else f"{text[: _MAX - 1]}…"
