"""Identity of an event: its `_id` and the instant that chooses its day. Pure functions.

Equal on every host and every wire, so that a replay meets what is already there. Frozen by the
golden vectors in tests/test_identity.py: a change here would double every event.

`time_us` of a commit is a display time. An operator can rewrite it to an earlier one (importTimestamps),
also for later updates of the same record, so it must not choose the day of an event with a sound rev.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from slurp.events import tid
from slurp.events.times import DAY_US, MAX_TIME_US, parse_time

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Identity(NamedTuple):
    """`_id`, instant in Unix microseconds, and whether the rev was too far in the future to choose it."""

    id: str
    instant_us: int
    is_future: bool = False


def event_id(event: Mapping[str, Any]) -> str:
    """Return the `_id` of a checked event: at most 36 ASCII characters.

    For a commit: its rev, a dash, and the hash; a rev that is no TID is only hashed. Revs are
    ordered by time and share prefixes, which Lucene's term dictionary likes.
    """
    return identify(event).id


def instant_us(event: Mapping[str, Any], now_us: int = MAX_TIME_US) -> int:
    """Return the Unix microseconds of `@timestamp`, which also chooses the day index.

    Of a commit or sync: the time in its rev, if that is a TID not more than a day before `time_us`,
    however much later. An older rev is that of a dormant account that is announced again and belongs
    to today, and a made-up one must not open day indices of the past. A rev more than a day after
    `now_us` must not open those of the future; this alone depends on a clock. Then it is `time_us`.

    Of an identity or account event: its inner time if within a day of `time_us`, else `time_us`, which
    no operator rewrites for these.
    """
    return identify(event, now_us).instant_us


def identify(event: Mapping[str, Any], now_us: int = MAX_TIME_US) -> Identity:
    """Return `event_id` and `instant_us`, which look at the same values."""
    kind = event["kind"]
    inner = event[kind]
    did = event["did"]
    time_us: int = event["time_us"]
    if kind == "commit":
        return identify_commit(
            did, inner["collection"], inner["rkey"], inner["rev"], inner["operation"], time_us, now_us
        )
    if kind == "identity":
        own = parse_time(inner["time"])
        doc_id = _digest(kind, did, inner["time"], inner.get("handle"))
    elif kind == "sync":
        # No time: who finds a broken chain by himself sends none, and a rev is said once.
        doc_id = _digest(kind, did, inner["rev"])
        return Identity(doc_id, *_by_rev(tid.to_micros(inner["rev"]), time_us, now_us))
    else:
        own = parse_time(inner["time"])
        doc_id = _digest(kind, did, inner["time"], inner["active"], inner.get("status"))
    is_near = own is not None and -DAY_US <= own - time_us <= DAY_US
    return Identity(doc_id, own if own is not None and is_near else time_us)


def identify_commit(
    did: str,
    collection: str,
    rkey: str,
    rev: str,
    operation: str,
    time_us: int,
    now_us: int = MAX_TIME_US,
) -> Identity:
    """Return what `identify` does, for the values of a commit."""
    # Spelt out, as it runs for nearly every event.
    joined = (
        f"{len(did)}:{did},{len(collection)}:{collection},{len(rkey)}:{rkey},"
        f"{len(rev)}:{rev},{len(operation)}:{operation},"
    )
    doc_id = _hash(joined) if joined.isascii() else _digest(did, collection, rkey, rev, operation)
    if (own := tid.to_micros(rev)) is None:
        return Identity(doc_id, time_us)
    return Identity(f"{rev}-{doc_id}", *_by_rev(own, time_us, now_us))


def _by_rev(own: int | None, time_us: int, now_us: int) -> tuple[int, bool]:
    """Return the instant, and whether the rev, whose time is `own`, lies too far in the future."""
    if own is None or own < time_us - DAY_US:
        return time_us, False
    if own > now_us + DAY_US:
        return time_us, True
    return own, False


def _digest(*parts: str | bool | None) -> str:
    """base64url of blake2b-128 over the parts as netstrings: byte length, colon, UTF-8 text, comma.

    Absent parts are `~,`; booleans are `true` and `false`. The lengths keep ("ab", "c") and
    ("a", "bc") apart whatever strangers put into an rkey.
    """
    texts = [part if part is None or isinstance(part, str) else ("false", "true")[part] for part in parts]
    return _hash("".join("~," if text is None else f"{len(text.encode())}:{text}," for text in texts))


def _hash(joined: str) -> str:
    digest = blake2b(joined.encode(), digest_size=16).digest()
    return b2a_base64(digest, newline=False)[:22].translate(_URL_SAFE).decode()
