"""Table of the fields shared by all collections: source of the mapping, the documentation and the tests.

`python -m slurp.documents build` writes the mapping into the asset of the component template, and
docs/fields.md. The fields of single record types are compiled from their lexicons: `slurp.lexicons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from slurp.documents.sanitize import FLAT_VALUE_LENGTH

Mapped = Mapping[str, Any]

# Characters. A Lucene term is limited to 32,766 bytes and a character has at most four, so a value of up to
# 8,191 characters cannot make Elasticsearch reject a document.
MAX_KEYWORD = 8191


def _keyword(length: int = 512) -> Mapped:
    return {"type": "keyword", "ignore_above": length}


_DID = _keyword(2048)
_URI = _keyword(4096)
_LINK = _keyword(MAX_KEYWORD)
_NSID = _keyword(512)
_TEXT: Mapped = {"type": "text"}
_DATE: Mapped = {"type": "date"}
_USER_DATE: Mapped = {"type": "date", "ignore_malformed": True}
_LONG: Mapped = {"type": "long"}
_USER_LONG: Mapped = {"type": "long", "ignore_malformed": True}


class Field(NamedTuple):
    """A field: its path, its mapping, its meaning and the events that have it, as documented."""

    path: str
    mapping: Mapped
    meaning: str
    source: str


_POSTS = "posts"
_FACETED = "posts; lists, feeds, starter packs"

FIELDS: tuple[Field, ...] = (
    Field("@timestamp", _DATE, "time of the event; determines the daily index", "rev of a commit or sync, or time of an identity or account event; `time_us` if that is more than a day off"),
    Field("did", _DID, "DID of the repository or account", "every event"),
    Field("kind", {"type": "keyword"}, "`commit`, `identity`, `account` or `sync`", "every event"),
    Field("uri", _URI, "`at://did/collection/rkey`", "commits"),
    Field("url", _URI, "page on bsky.app", "posts, feeds, lists"),
    Field("commit.rev", _keyword(256), "revision of the repository", "commits"),
    Field("commit.operation", {"type": "keyword"}, "`create`, `update` or `delete`", "commits"),
    Field("commit.collection", _NSID, "NSID of the record type", "commits"),
    Field("commit.rkey", _keyword(1024), "key of the record in its collection", "commits"),
    Field("commit.cid", _keyword(256), "hash of the record", "creates and updates"),
    Field("commit.resync", {"type": "boolean"}, "`true` if the record was announced again because its repository was replaced", "creates after a sync of the same DID and rev, protocol v2 only"),
    Field("commit.bootstrap", {"type": "boolean"}, "`true` if the record existed before and a newly set up server announced it", "creates with an old rev, an rkey much older than the rev, or a rev shared by many creates, while such a server sends the records of all accounts"),
    Field("identity.handle", _keyword(512), "the new handle", "identity events"),
    Field("identity.seq", _USER_LONG, "sequence number of the relay", "identity events"),
    Field("identity.time", _USER_DATE, "time of the change", "identity events"),
    Field("account.active", {"type": "boolean"}, "whether the account is visible", "account events"),
    Field("account.status", _keyword(256), "reason if not active: `takendown`, `suspended`, `deleted`, `deactivated`", "account events"),
    Field("account.seq", _USER_LONG, "sequence number of the relay", "account events"),
    Field("account.time", _USER_DATE, "time of the change", "account events"),
    Field("sync.rev", _keyword(256), "revision of the repository that replaces all earlier ones", "sync events, protocol v2 only"),
    Field("sync.seq", _USER_LONG, "sequence number of the relay", "sync events"),
    Field("sync.time", _USER_DATE, "time of the replacement", "sync events"),
    Field("created_at", _USER_DATE, "time claimed by the record; absent if invalid, `@timestamp` if later than that", "`createdAt`, else `publishedAt`, of any record"),
    Field("text", _TEXT, "user-written text", "`text` of posts, `textContent` of documents"),
    Field("length.graphemes", _LONG, "length of `text` in grapheme clusters (user-perceived characters)", "events with `text`"),
    Field("emoji", _keyword(64), "emoji in `text`, each once; a joined sequence (👩‍🚀) is one", "events with `text`"),
    Field("langs", _keyword(64), "languages, BCP 47 in canonical case (`pt-BR`); invalid tags are omitted", "`langs` of posts"),
    Field("lang", _keyword(16), "primary subtags of `langs` (`pt`)", "`langs` of posts"),
    Field("alt", _TEXT, "alternative texts of images and videos", "embeds of posts"),
    Field("external.title", _TEXT, "title of a link card", "embeds of posts and live statuses"),
    Field("external.description", _TEXT, "description on a link card", "embeds of posts and live statuses"),
    Field("name", {"type": "text", "fields": {"keyword": _keyword(256)}}, "display name or title", "`displayName` of profiles, feeds, verifications; `name` of lists, starter packs, publications; `title` of documents"),
    Field("description", _TEXT, "description by the owner", "profiles, lists, feeds, starter packs, documents, publications"),
    Field("tags", _keyword(1024), "hashtags as written, without `#`", f"facets and `tags` of {_FACETED}; documents"),
    Field("tags_folded", _keyword(1024), "`tags` without differences of case and width, for counting and filtering", "events with `tags`"),
    Field("mentions", _DID, "DIDs of mentioned accounts", f"facets of {_FACETED}"),
    Field("links", _LINK, "linked URIs", f"facets of {_FACETED}; link cards; websites of profiles, addresses of publications"),
    Field("domains", _keyword(256), "registrable domains of `links` in ASCII (`example.co.uk`)", "events with `links`"),
    Field("media.kinds", {"type": "keyword"}, "`image`, `video`, `gif`, `external` (a link card), `quote`, `record` (a list, feed …)", "embeds of posts and live statuses"),
    Field("media.count", _LONG, "number of images, videos and GIFs", "events with `media.kinds`"),
    Field("reply.root.uri", _URI, "first post of the thread", _POSTS),
    Field("reply.root.did", _DID, "author of the first post", _POSTS),
    Field("reply.parent.uri", _URI, "post that is replied to", _POSTS),
    Field("reply.parent.url", _URI, "page of that post on bsky.app", _POSTS),
    Field("reply.parent.did", _DID, "author of that post", _POSTS),
    Field("quote.uri", _URI, "quoted post", "embeds of posts"),
    Field("quote.url", _URI, "page of the quoted post on bsky.app", "embeds of posts"),
    Field("quote.did", _DID, "author of the quoted post", "embeds of posts"),
    Field("subject.uri", _URI, "record that this record refers to", "likes, reposts, list blocks, thread and post gates, recommendations, subscriptions; `subject` of any other record"),
    Field("subject.url", _URI, "page of `subject.uri` on bsky.app", "events whose `subject.uri` is a post, feed or list"),
    Field("subject.did", _DID, "account that this record refers to, or author of `subject.uri`", "the same, and follows, blocks, list items, verifications"),
    Field("subject.collection", _NSID, "record type of `subject.uri`", "events with `subject.uri`"),
    Field("subject.cid", _keyword(256), "CID (version) of `subject.uri`", "likes, reposts"),
    Field("via.uri", _URI, "repost or starter pack through which the user found the subject", "likes, reposts, follows"),
    Field("via.did", _DID, "author of `via.uri`", "likes, reposts, follows"),
    Field("list.uri", _URI, "URI of the list", "list items, starter packs"),
    Field("list.did", _DID, "owner of the list", "list items, starter packs"),
    Field("labels", _keyword(256), "self-labels by the author", "posts, profiles, lists, feeds, labelers, documents, publications"),
    Field("other_record", {"type": "flattened", "depth_limit": 20, "ignore_above": FLAT_VALUE_LENGTH}, "complete record of a type without mapped fields; every value is a keyword", "record types without mapped fields"),
    Field("jetstream.host", {"type": "keyword"}, "server that sent the event", "every event"),
    Field("jetstream.time_us", _LONG, "server time, Unix microseconds", "every event"),
    Field("jetstream.cursor", _LONG, "sequence number of the server", "every event of servers with sequence numbers"),
    Field("event.ingested", _DATE, "time of arrival at the worker", "every event"),
    Field("event.lag_ms", _LONG, "`event.ingested` minus `@timestamp`, milliseconds", "every event"),
    Field("event.hour", {"type": "keyword"}, "hour of `@timestamp` in UTC, `00` to `23`", "every event"),
    Field("event.weekday", {"type": "keyword"}, "weekday of `@timestamp` in UTC, `1 Mon` to `7 Sun`", "every event"),
    Field("event.pipeline_error", _keyword(1024), "error of the ingest pipeline", "the ingest pipeline"),
    Field("quarantine.error", _keyword(1024), "reason why Elasticsearch rejected the full document: error type, field and reason without values, equal for equal errors", "quarantined events"),
    Field("quarantine.detail", {"type": "object", "enabled": False}, "complete error message of Elasticsearch, with position, document and value; not searchable", "quarantined events"),
    Field("quarantine.raw", {"type": "object", "enabled": False}, "original event as JSON text; not searchable", "quarantined events"),
)  # fmt: skip


def mapping() -> dict[str, Any]:
    """Return the `mappings` of the component template. Not dynamic: user data cannot add fields."""
    root: dict[str, Any] = {"dynamic": False, "properties": {}}
    for field in FIELDS:
        *parents, last = field.path.split(".")
        node = root["properties"]
        for name in parents:
            node = node.setdefault(name, {"properties": {}})["properties"]
        node[last] = dict(field.mapping)
    return root
