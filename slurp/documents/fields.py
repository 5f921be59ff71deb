"""The fields that every collection shares: one table for the mapping, the documentation and the tests.

`python -m slurp.documents build` writes the mapping into the component template's asset and
docs/fields.md. The fields of single record types come from their lexicons: `slurp.lexicons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from slurp.documents.sanitize import FLAT_VALUE_LENGTH

Mapped = Mapping[str, Any]

# Characters. A Lucene term may have 32,766 bytes and a character takes at most four, so nothing up
# to 8,191 characters makes Elasticsearch refuse a document.
MAX_KEYWORD = 8191


def _keyword(length: int = 512) -> Mapped:
    return {"type": "keyword", "ignore_above": length}


_DID = _keyword(2048)
_URI = _keyword(4096)
_LINK = _keyword(MAX_KEYWORD)
_NSID = _keyword(512)
_TEXT: Mapped = {"type": "text"}
_DATE: Mapped = {"type": "date"}
_THEIR_DATE: Mapped = {"type": "date", "ignore_malformed": True}
_LONG: Mapped = {"type": "long"}
_THEIR_LONG: Mapped = {"type": "long", "ignore_malformed": True}


class Field(NamedTuple):
    path: str
    mapping: Mapped
    meaning: str
    source: str


_POST = "posts"
_RICH = "posts; lists, feeds, starter packs"

FIELDS: tuple[Field, ...] = (
    Field("@timestamp", _DATE, "when it happened; chooses the day index", "the rev of a commit or sync, or the time of an identity or account event; `time_us` where that is more than a day off"),
    Field("did", _DID, "whose repository or account it is", "every event"),
    Field("kind", {"type": "keyword"}, "`commit`, `identity`, `account` or `sync`", "every event"),
    Field("uri", _URI, "`at://did/collection/rkey`", "commits"),
    Field("url", _URI, "the page of bsky.app that shows it", "posts, feeds, lists"),
    Field("commit.rev", _keyword(256), "revision of the repository", "commits"),
    Field("commit.operation", {"type": "keyword"}, "`create`, `update` or `delete`", "commits"),
    Field("commit.collection", _NSID, "NSID of the record type", "commits"),
    Field("commit.rkey", _keyword(1024), "key of the record in its collection", "commits"),
    Field("commit.cid", _keyword(256), "hash of the record", "commits that are no deletion"),
    Field("commit.resync", {"type": "boolean"}, "`true` where a record was not written but announced again: its repository was replaced", "creates after a sync of the same DID and rev, v2 wire only"),
    Field("commit.bootstrap", {"type": "boolean"}, "`true` where a record existed before: a server that was set up recently announced it", "creates with an old rev, an rkey far older than it, or a rev that many rows share, while such a server sends the records of all accounts"),
    Field("identity.handle", _keyword(512), "the new handle", "identity events"),
    Field("identity.seq", _THEIR_LONG, "the relay's sequence number", "identity events"),
    Field("identity.time", _THEIR_DATE, "when it changed", "identity events"),
    Field("account.active", {"type": "boolean"}, "whether the account can be seen", "account events"),
    Field("account.status", _keyword(256), "why not: `takendown`, `suspended`, `deleted`, `deactivated`", "account events"),
    Field("account.seq", _THEIR_LONG, "the relay's sequence number", "account events"),
    Field("account.time", _THEIR_DATE, "when it changed", "account events"),
    Field("sync.rev", _keyword(256), "revision of the repository that replaces what was known of it", "sync events, v2 wire only"),
    Field("sync.seq", _THEIR_LONG, "the relay's sequence number", "sync events"),
    Field("sync.time", _THEIR_DATE, "when it was replaced", "sync events"),
    Field("created_at", _THEIR_DATE, "the time that the record claims; absent if it is no time, `@timestamp` if it claims a later one", "`createdAt`, else `publishedAt`, of any record"),
    Field("text", _TEXT, "what somebody wrote", "`text` of posts, `textContent` of documents"),
    Field("length.graphemes", _LONG, "length of `text` in characters as people count them", "where `text` is"),
    Field("emoji", _keyword(64), "emoji in `text`, each once; joined ones (👩‍🚀) are one", "where `text` is"),
    Field("langs", _keyword(64), "languages, BCP 47 in canonical case (`pt-BR`); what is no tag is left out", "`langs` of posts"),
    Field("lang", _keyword(16), "their primary tags (`pt`)", "`langs` of posts"),
    Field("alt", _TEXT, "descriptions of images and videos", "embeds of posts"),
    Field("external.title", _TEXT, "title of a link card", "embeds of posts and live statuses"),
    Field("external.description", _TEXT, "description on a link card", "embeds of posts and live statuses"),
    Field("name", {"type": "text", "fields": {"keyword": _keyword(256)}}, "a name to show", "`displayName` of profiles, feeds, verifications; `name` of lists, starter packs, publications; `title` of documents"),
    Field("description", _TEXT, "what its owner says about it", "profiles, lists, feeds, starter packs, documents, publications"),
    Field("tags", _keyword(1024), "hashtags as written, without `#`", f"facets and `tags` of {_RICH}; documents"),
    Field("tags_folded", _keyword(1024), "the same without differences of case and width: for counting and filtering", "where `tags` is"),
    Field("mentions", _DID, "DIDs of mentioned people", f"facets of {_RICH}"),
    Field("links", _LINK, "linked URIs", f"facets of {_RICH}; link cards; websites of profiles, addresses of publications"),
    Field("domains", _keyword(256), "their registrable domains in ASCII (`example.co.uk`)", "where `links` is"),
    Field("media.kinds", {"type": "keyword"}, "`image`, `video`, `gif`, `external` (a link card), `quote`, `record` (a list, feed …)", "embeds of posts and live statuses"),
    Field("media.count", _LONG, "how many images, videos and GIFs", "where `media.kinds` is"),
    Field("reply.root.uri", _URI, "the post that began the thread", _POST),
    Field("reply.root.did", _DID, "its author", _POST),
    Field("reply.parent.uri", _URI, "the post that is answered", _POST),
    Field("reply.parent.url", _URI, "its page of bsky.app", _POST),
    Field("reply.parent.did", _DID, "its author", _POST),
    Field("quote.uri", _URI, "the quoted post", "embeds of posts"),
    Field("quote.url", _URI, "its page of bsky.app", "embeds of posts"),
    Field("quote.did", _DID, "its author", "embeds of posts"),
    Field("subject.uri", _URI, "what the record is about", "likes, reposts, list blocks, thread and post gates, recommendations, subscriptions; `subject` of any other record"),
    Field("subject.url", _URI, "its page of bsky.app", "where `subject.uri` is a post, feed or list"),
    Field("subject.did", _DID, "whom it is about: the target, or its author", "the same, and follows, blocks, list items, verifications"),
    Field("subject.collection", _NSID, "record type of `subject.uri`", "where `subject.uri` is"),
    Field("subject.cid", _keyword(256), "version of `subject.uri`", "likes, reposts"),
    Field("via.uri", _URI, "the repost or starter pack by which its author came there", "likes, reposts, follows"),
    Field("via.did", _DID, "whose that is", "likes, reposts, follows"),
    Field("list.uri", _URI, "the list", "list items, starter packs"),
    Field("list.did", _DID, "its owner", "list items, starter packs"),
    Field("labels", _keyword(256), "labels that its author gave", "posts, profiles, lists, feeds, labelers, documents, publications"),
    Field("other_record", {"type": "flattened", "depth_limit": 20, "ignore_above": FLAT_VALUE_LENGTH}, "the whole record of a type without mapped fields: every value is a keyword", "lexicons that are not typed"),
    Field("jetstream.host", {"type": "keyword"}, "the server that sent the event", "every event"),
    Field("jetstream.time_us", _LONG, "the server's time, Unix microseconds", "every event"),
    Field("jetstream.cursor", _LONG, "the server's sequence number", "every event of servers that have one"),
    Field("event.ingested", _DATE, "when it came here", "every event"),
    Field("event.lag_ms", _LONG, "how long after `@timestamp` that was, milliseconds", "every event"),
    Field("event.hour", {"type": "keyword"}, "hour of `@timestamp` in UTC, `00` to `23`", "every event"),
    Field("event.weekday", {"type": "keyword"}, "weekday of `@timestamp` in UTC, `1 Mon` to `7 Sun`", "every event"),
    Field("event.pipeline_error", _keyword(1024), "what the ingest pipeline could not do", "the ingest pipeline"),
    Field("quarantine.error", _keyword(1024), "why Elasticsearch rejected the full document: error type, field and reason without values, equal for equal faults", "quarantined events"),
    Field("quarantine.detail", {"type": "object", "enabled": False}, "the same in the words of Elasticsearch, with position, document and value; not searchable", "quarantined events"),
    Field("quarantine.raw", {"type": "object", "enabled": False}, "the event as it came, JSON text, not searchable", "quarantined events"),
)  # fmt: skip


def mapping() -> dict[str, Any]:
    """The `mappings` of the component template: no stranger can add a field."""
    root: dict[str, Any] = {"dynamic": False, "properties": {}}
    for field in FIELDS:
        *parents, last = field.path.split(".")
        node = root["properties"]
        for name in parents:
            node = node.setdefault(name, {"properties": {}})["properties"]
        node[last] = dict(field.mapping)
    return root
