"""The short way from frame to document for likes, reposts, follows and blocks: three events of four.

Nearly all of them are written the same way to the letter. One regular expression knows the letter, by both
wires, and lets through no value that would have to be escaped; the document is then one template. Whatever
does not match takes the long way, `parse` and `build`, and both make the same bytes: tests/test_express.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from slurp.documents.document import TYPED, Document, arrival
from slurp.documents.times import created_at, hour_and_weekday
from slurp.documents.urls import PLACES, page_of
from slurp.events.frames import parse, parse_v2_time
from slurp.events.identity import identify_commit
from slurp.events.times import MAX_TIME_US, isoformat

# The collections of this way: a subject, perhaps a `via`, and when.
COLLECTIONS = (
    "app.bsky.feed.like",
    "app.bsky.feed.repost",
    "app.bsky.graph.block",
    "app.bsky.graph.follow",
)

_PLAIN = r"[A-Za-z0-9:._~-]++"
_DID = r"did:[A-Za-z0-9:._~-]++"
_TEXT = r'[^"\\\x00-\x1f]*+'
# Of the digits that microseconds of our age have, and that a sequence number may have.
_MICROS = r"[1-9][0-9]{14,15}"
_SEQ = r"[1-9][0-9]{0,14}"

_RECORD = (
    r'(?P<record>\{"\$type":"(?P=collection)",'
    rf'"createdAt":"(?P<created>{_TEXT})",'
    rf'"subject":(?:"(?P<whom>{_DID})"|\{{"cid":"(?P<subject_cid>{_PLAIN})",'
    rf'"uri":"(?P<subject>at://(?P<subject_did>{_DID})/(?P<subject_collection>{_PLAIN})/{_PLAIN})"\}})'
    rf'(?:,"via":\{{"cid":"{_PLAIN}","uri":"(?P<via>at://(?P<via_did>{_DID})/{_PLAIN}/{_PLAIN})"\}})?\}})'
)
_COLLECTION = rf'"collection":"(?P<collection>{"|".join(map(re.escape, COLLECTIONS))})"'
# Of 13 characters, the first of the lower sixteen: a TID.
_REV = r'"rev":"(?P<rev>[2-7a-j][2-7a-z]{12})"'
_RKEY = rf'"rkey":"(?P<rkey>{_PLAIN})"'
_CID = rf'"cid":"(?P<cid>{_PLAIN})"'
_BY = rf'"did":"(?P<did>{_DID})"'

_V1 = re.compile(
    rf'\{{{_BY},"time_us":(?P<time>{_MICROS}),(?:"cursor":(?P<cursor>{_SEQ}),)?"kind":"commit",'
    rf'"commit":\{{{_REV},"operation":"create",{_COLLECTION},{_RKEY},"record":{_RECORD},{_CID}\}}\}}'
)
_V2 = re.compile(
    r'\{"\$type":"message","payload":\{"\$type":"network\.bsky\.jetstream\.subscribeEvents#commit",'
    rf'{_CID},{_COLLECTION},{_BY},"operation":"create","record":{_RECORD},{_REV},{_RKEY},'
    rf'"seq":(?P<cursor>{_SEQ}),"time":"(?P<time>{_TEXT})"\}}\}}'
)
_V1_BEGINS = b'{"did"'
_EVENT = ("did", "time", "cursor", "rev", "collection", "rkey", "cid", "record", "created", "whom", "via")
_SUBJECT = ("subject", "subject_did", "subject_collection", "subject_cid")
# By number, as a look for a name costs as much again.
_EVENT_V1, _EVENT_V2 = ([pattern.groupindex[name] for name in _EVENT] for pattern in (_V1, _V2))


class RenderedDocument(NamedTuple):
    """A document and the `time_us` of its event."""

    document: Document
    time_us: int


class FastPath:
    """Not thread-safe: one for each indexer."""

    def __init__(
        self,
        typed: Container[str] = TYPED,
        is_noteworthy: Callable[[dict[str, Any]], object] = lambda event: None,
    ) -> None:
        """`is_noteworthy` says something of an event whose record has what its lexicon has not. Asked
        once for each shape of record, as the shapes here are few; such a shape takes the long way."""
        self._typed = typed
        self._is_noteworthy = is_noteworthy
        self._usual: dict[tuple[str, bool, bool], bool] = {}

    def make(
        self, frame: bytes, host: str, arrived_us: int, now_us: int = MAX_TIME_US
    ) -> RenderedDocument | None:
        """Return the document of a frame, as `build` makes it; None if it has to take the long way."""
        if not frame.isascii():
            return None
        is_v1 = frame.startswith(_V1_BEGINS)
        if (found := (_V1 if is_v1 else _V2).fullmatch(frame.decode("ascii"))) is None:
            return None
        did, time, cursor, rev, collection, rkey, cid, record, claimed, whom, via = found.group(
            *(_EVENT_V1 if is_v1 else _EVENT_V2)
        )
        if (time_us := int(time) if is_v1 else parse_v2_time(time)) is None:
            return None
        shape = (collection, whom is None, via is None)
        if not (self._usual[shape] if shape in self._usual else self._is_usual(shape, frame)):
            return None

        identity = identify_commit(did, collection, rkey, rev, "create", time_us, now_us)
        instant = identity.instant_us
        timestamp = isoformat(instant)
        hour, weekday = hour_and_weekday(instant)
        created = created_at(claimed, timestamp)
        body = (
            f'{{"@timestamp":"{timestamp}","did":"{did}","kind":"commit","uri":"at://{did}/{collection}/{rkey}",'
            f'"commit":{{"rev":"{rev}","operation":"create","collection":"{collection}","rkey":"{rkey}",'
            f'"cid":"{cid}"}},"jetstream":{{"host":{_quoted(host)},"time_us":{time_us},'
            f'"cursor":{cursor or "null"}}},"event":{{"ingested":"{arrival(arrived_us)}",'
            f'"lag_ms":{(arrived_us - instant) // 1000},"hour":"{hour}","weekday":"{weekday}"}},'
        )
        if created is not None:
            body += f'"created_at":"{created}",'
        if whom is not None:
            body += f'"subject":{{"did":"{whom}"}},'
        else:
            uri, target, kind, version = found.group(*_SUBJECT)
            page = f'"url":"{page_of(uri)}",' if kind in PLACES else ""
            body += (
                f'"subject":{{"uri":"{uri}","did":"{target}",{page}"collection":"{kind}","cid":"{version}"}},'
            )
        if via is not None:
            body += f'"via":{{"uri":"{via}","did":"{found["via_did"]}"}},'
        body += f'"record":{{"{collection}":{record}}}}}'
        return RenderedDocument(Document(identity, body.encode()), time_us)

    def _is_usual(self, shape: tuple[str, bool, bool], frame: bytes) -> bool:
        """Whether all that a record of this shape has stands in its lexicon."""
        usual = shape[0] in self._typed and not self._is_noteworthy(parse(frame))
        self._usual[shape] = usual
        return usual


@lru_cache(maxsize=16)
def _quoted(host: str) -> str:
    return orjson.dumps(host).decode()
