"""Fast path from frame to document for likes, reposts, follows and blocks: three of four events.

Nearly all of them have exactly the same format. One regular expression for each protocol matches this format
and excludes all values that would need escaping, so that the document is a template. Every other frame takes
the general path, `parse` and `build`. Both give the same bytes: tests/test_fast_path.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from slurp.documents.document import SHAPES, Document, format_arrival
from slurp.documents.times import hour_and_weekday, parse_created_at
from slurp.events.frames import parse, parse_v2_time
from slurp.events.identity import identify_commit
from slurp.events.times import MAX_TIME_US, isoformat

# The collections of the fast path: records of a subject, an optional `via` and `createdAt`.
COLLECTIONS = (
    "app.bsky.feed.like",
    "app.bsky.feed.repost",
    "app.bsky.graph.block",
    "app.bsky.graph.follow",
)

_PLAIN = r"[A-Za-z0-9:._~-]++"
# Shorter than the longest that `urls.is_did` accepts, and without percent signs.
_DID = r"did:[a-z]{1,64}+:[A-Za-z0-9:._-]{1,1024}+(?<!:)"
_TEXT = r'[^"\\\x00-\x1f]*+'
# Unix microseconds of this century have 15 or 16 digits.
_MICROS = r"[1-9][0-9]{14,15}"
# Shorter than the longest integer that Elasticsearch accepts.
_SEQ = r"[1-9][0-9]{0,14}"

_RECORD = (
    r'(?P<record>\{"\$type":"(?P=collection)",'
    rf'"createdAt":"(?P<created>{_TEXT})",'
    rf'"subject":(?:"(?P<subject_actor>{_DID})"|\{{"cid":"{_PLAIN}",'
    rf'"uri":"(?P<subject>at://(?P<subject_did>{_DID})/(?P<subject_collection>{_PLAIN})/{_PLAIN})"\}})'
    rf'(?:,"via":\{{"cid":"{_PLAIN}","uri":"(?P<via>at://(?P<via_did>{_DID})/{_PLAIN}/{_PLAIN})"\}})?\}})'
)
_COLLECTION_MEMBER = rf'"collection":"(?P<collection>{"|".join(map(re.escape, COLLECTIONS))})"'
# A TID: 13 characters, the first one of the lower sixteen.
_REV_MEMBER = r'"rev":"(?P<rev>[2-7a-j][2-7a-z]{12})"'
_RKEY_MEMBER = rf'"rkey":"(?P<rkey>{_PLAIN})"'
_CID_MEMBER = rf'"cid":"(?P<cid>{_PLAIN})"'
_DID_MEMBER = rf'"did":"(?P<did>{_DID})"'

_V1 = re.compile(
    rf'\{{{_DID_MEMBER},"time_us":(?P<time>{_MICROS}),(?:"cursor":(?P<cursor>{_SEQ}),)?"kind":"commit",'
    rf'"commit":\{{{_REV_MEMBER},"operation":"create",{_COLLECTION_MEMBER},{_RKEY_MEMBER},"record":{_RECORD},{_CID_MEMBER}\}}\}}'
)
_V2 = re.compile(
    r'\{"\$type":"message","payload":\{"\$type":"network\.bsky\.jetstream\.subscribeEvents#commit",'
    rf'{_CID_MEMBER},{_COLLECTION_MEMBER},{_DID_MEMBER},"operation":"create","record":{_RECORD},{_REV_MEMBER},{_RKEY_MEMBER},'
    rf'"seq":(?P<cursor>{_SEQ}),"time":"(?P<time>{_TEXT})"\}}\}}'
)
_V1_START = b'{"did"'
_EVENT_GROUPS = (
    "did",
    "time",
    "cursor",
    "rev",
    "collection",
    "rkey",
    "cid",
    "record",
    "created",
    "subject_actor",
    "via",
)
_SUBJECT_GROUPS = ("subject", "subject_did", "subject_collection")
# By number, because access by name takes twice as long.
_V1_GROUPS, _V2_GROUPS = ([pattern.groupindex[name] for name in _EVENT_GROUPS] for pattern in (_V1, _V2))


class RenderedDocument(NamedTuple):
    """A document, and `time_us` and `did` of its event.

    `uri` is that of the record of a create or update, None for other events.
    """

    document: Document
    time_us: int
    did: str
    uri: str | None


class FastPath:
    """Renders documents directly from frames. Not thread-safe: one instance for each indexer."""

    def __init__(
        self,
        types: Container[str] = SHAPES,
        has_unknown_fields: Callable[[dict[str, Any]], object] = lambda event: None,
    ) -> None:
        """`has_unknown_fields` returns a true value for an event whose record has fields that are not in its
        lexicon. It is called once for each shape of record; shapes with unknown fields take the general path.
        """
        self._types = types
        self._has_unknown_fields = has_unknown_fields
        self._known_shapes: dict[tuple[str, bool, bool], bool] = {}

    def render(
        self, frame: bytes, host: str, arrived_us: int, now_us: int = MAX_TIME_US
    ) -> RenderedDocument | None:
        """Return the document of a frame, equal to that of `build`; None if it must take the general path."""
        if not frame.isascii():
            return None
        is_v1 = frame.startswith(_V1_START)
        if (found := (_V1 if is_v1 else _V2).fullmatch(frame.decode("ascii"))) is None:
            return None
        did, time, cursor, rev, collection, rkey, cid, record, claimed, subject_actor, via = found.group(
            *(_V1_GROUPS if is_v1 else _V2_GROUPS)
        )
        if (time_us := int(time) if is_v1 else parse_v2_time(time)) is None:
            return None
        shape = (collection, subject_actor is None, via is None)
        if not (
            self._known_shapes[shape] if shape in self._known_shapes else self._is_known_shape(shape, frame)
        ):
            return None

        identity = identify_commit(did, collection, rkey, rev, "create", time_us, now_us)
        instant = identity.instant_us
        timestamp = isoformat(instant)
        hour, weekday = hour_and_weekday(instant)
        created = parse_created_at(claimed, timestamp)
        uri = f"at://{did}/{collection}/{rkey}"
        body = (
            f'{{"@timestamp":"{timestamp}","did":"{did}","kind":"commit","uri":"{uri}",'
            f'"commit":{{"rev":"{rev}","operation":"create","collection":"{collection}","rkey":"{rkey}",'
            f'"cid":"{cid}"}},"jetstream":{{"host":{_quoted(host)},"time_us":{time_us},'
            f'"cursor":{cursor or "null"}}},"event":{{"ingested":"{format_arrival(arrived_us)}",'
            f'"lag_ms":{(arrived_us - instant) // 1000},"hour":"{hour}","weekday":"{weekday}"}},'
        )
        if created is not None:
            body += f'"created_at":"{created}",'
        if subject_actor is not None:
            body += f'"subject":{{"did":"{subject_actor}"}},'
        else:
            liked, target, kind = found.group(*_SUBJECT_GROUPS)
            body += f'"subject":{{"uri":"{liked}","did":"{target}","collection":"{kind}"}},'
        if via is not None:
            body += f'"via":{{"uri":"{via}","did":"{found["via_did"]}"}},'
        body += f'"record":{{"{collection}":{record}}}}}'
        return RenderedDocument(Document(identity, body.encode()), time_us, did, uri)

    def _is_known_shape(self, shape: tuple[str, bool, bool], frame: bytes) -> bool:
        """Return whether the lexicon has all fields of records of this shape."""
        is_known = shape[0] in self._types and not self._has_unknown_fields(parse(frame))
        self._known_shapes[shape] = is_known
        return is_known


@lru_cache(maxsize=16)
def _quoted(host: str) -> str:
    return orjson.dumps(host).decode()
