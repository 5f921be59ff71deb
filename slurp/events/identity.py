"""Identity of an event: its `_id` and the time that chooses its daily index. Pure functions.

The `_id` is equal on every host and in every protocol, so that a replayed event is a duplicate of the stored
one.
The golden vectors in tests/test_identity.py freeze it: any change here would index every event twice.

`time_us` of a commit is a display time. An operator can rewrite it to an earlier one (importTimestamps), also
for later updates of the same record, so it must not choose the day of an event whose rev is plausible.
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
    """The `_id`, the event's time in Unix microseconds, and whether its rev was too far in the future."""

    id: str
    instant_us: int
    is_future: bool = False


def event_id(event: Mapping[str, Any]) -> str:
    """Return the `_id` of a checked event: at most 36 ASCII characters.

    For a commit it is the rev, a dash and the hash; if the rev is not a TID, the hash alone. Revs are ordered
    by time and share prefixes, which keeps Lucene's term dictionary small and fast.
    """
    return identify(event).id


def instant_us(event: Mapping[str, Any], now_us: int = MAX_TIME_US) -> int:
    """Return the Unix microseconds of `@timestamp`, which also chooses the daily index.

    Commit or sync: the time in its rev, if that is a TID and not more than a day before `time_us`, however
    much later. An older rev is that of a dormant account that is announced again; the event belongs to
    today, and forged revs must not create daily indices of the past. A rev more than a day after `now_us`
    must not create daily indices of the future; only this rule depends on a clock. In both cases the result
    is `time_us`.

    Identity or account event: its inner time if within a day of `time_us`, else `time_us`, which no operator
    rewrites for these.
    """
    return identify(event, now_us).instant_us


def identify(event: Mapping[str, Any], now_us: int = MAX_TIME_US) -> Identity:
    """Return both `event_id` and `instant_us`, which are computed from the same values."""
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
        # Without its time: a server that detects a broken chain itself sends none. A rev occurs once.
        doc_id = _digest(kind, did, inner["rev"])
        return Identity(doc_id, *_choose_instant(tid.to_micros(inner["rev"]), time_us, now_us))
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
    """Return the same as `identify`, from the values of a commit."""
    # Written out for speed: this runs for nearly every event.
    joined = (
        f"{len(did)}:{did},{len(collection)}:{collection},{len(rkey)}:{rkey},"
        f"{len(rev)}:{rev},{len(operation)}:{operation},"
    )
    doc_id = _hash(joined) if joined.isascii() else _digest(did, collection, rkey, rev, operation)
    if (own := tid.to_micros(rev)) is None:
        return Identity(doc_id, time_us)
    return Identity(f"{rev}-{doc_id}", *_choose_instant(own, time_us, now_us))


def _choose_instant(rev_us: int | None, time_us: int, now_us: int) -> tuple[int, bool]:
    """Return the event's time and whether `rev_us`, the time in its rev, is too far in the future."""
    if rev_us is None or rev_us < time_us - DAY_US:
        return time_us, False
    if rev_us > now_us + DAY_US:
        return time_us, True
    return rev_us, False


def _digest(*parts: str | bool | None) -> str:
    """Return base64url(blake2b-128) of the parts as netstrings: byte length, colon, UTF-8 text, comma.

    Absent parts are `~,`; booleans are `true` and `false`. The lengths keep ("ab", "c") and ("a", "bc")
    distinct, whatever characters an rkey contains.
    """
    texts = [part if part is None or isinstance(part, str) else ("false", "true")[part] for part in parts]
    return _hash("".join("~," if text is None else f"{len(text.encode())}:{text}," for text in texts))


def _hash(joined: str) -> str:
    digest = blake2b(joined.encode(), digest_size=16).digest()
    return b2a_base64(digest, newline=False)[:22].translate(_URL_SAFE).decode()
