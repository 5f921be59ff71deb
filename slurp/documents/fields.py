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
# Numbers without points: doc values answer the rare range as well, only slower.
_LONG: Mapped = {"type": "long", "index": False}
_USER_LONG: Mapped = {"type": "long", "index": False, "ignore_malformed": True}
_BOOLEAN: Mapped = {"type": "boolean"}


class Field(NamedTuple):
    """A field: its path, its mapping, its meaning and the events that have it, as documented.

    A field without a mapping is in `_source` only: it is shown, but cannot be searched.
    """

    path: str
    mapping: Mapped | None
    meaning: str
    source: str


_POSTS = "posts"
_BACKFILL = "events from an archive, see [History from the archive](backfill.md)"
_REDACTED = "redacted documents"
_FACETED = "posts; lists, feeds, starter packs"
_OTHER = "records of other applications"

FIELDS: tuple[Field, ...] = (
    Field("@timestamp", _DATE, "time of the event; determines the daily index", "rev of a commit or sync, or time of an identity or account event; `time_us` if that is more than a day off"),
    Field("did", _DID, "DID of the repository or account", "every event"),
    Field("kind", {"type": "keyword"}, "`commit`, `identity`, `account` or `sync`", "every event"),
    Field("uri", {**_URI, "doc_values": False}, "`at://did/collection/rkey`", "commits"),
    Field("commit.operation", {"type": "keyword"}, "`create`, `update` or `delete`", "commits"),
    Field("commit.collection", _NSID, "NSID of the record type", "commits"),
    Field("commit.rkey", None, "key of the record in its collection; the end of `uri`", "commits"),
    Field("commit.rev", None, "revision of the repository", "commits"),
    Field("commit.cid", None, "hash of the record", "creates and updates"),
    Field("commit.resync", _BOOLEAN, "`true` if the record was announced again because its repository was replaced", "creates after a sync of the same DID and rev, protocol v2 only"),
    Field("commit.bootstrap", _BOOLEAN, "`true` if the record existed before and a newly set up server announced it", "creates with an old rev, an rkey much older than the rev, or a rev shared by many creates, while such a server sends the records of all accounts"),
    Field("identity.handle", _keyword(512), "the new handle", "identity events"),
    Field("identity.seq", _USER_LONG, "sequence number of the relay", "identity events"),
    Field("identity.time", _USER_DATE, "time of the change", "identity events"),
    Field("account.active", _BOOLEAN, "whether the account is visible", "account events"),
    Field("account.status", _keyword(256), "reason if not active: `takendown`, `suspended`, `deleted`, `deactivated`", "account events"),
    Field("account.seq", _USER_LONG, "sequence number of the relay", "account events"),
    Field("account.time", _USER_DATE, "time of the change", "account events"),
    Field("sync.rev", None, "revision of the repository that replaces all earlier ones", "sync events, protocol v2 only"),
    Field("sync.seq", _USER_LONG, "sequence number of the relay", "sync events"),
    Field("sync.time", _USER_DATE, "time of the replacement", "sync events"),
    Field("created_at", _USER_DATE, "time claimed by the record; absent if invalid, before 1990, or more than a day after `@timestamp`", "`createdAt`, else `publishedAt`, of any record"),
    Field("text", _TEXT, "user-written text, without invisible characters (soft hyphens, direction marks, zero-width spaces) and in Unicode's composed form (NFC); the record has it as it was written", f"`text` of posts, or `bridgyOriginalText` without HTML if a bridge shortened it; `textContent` of documents; the main text of {_OTHER}"),
    Field("length.graphemes", _LONG, "length of `text` in grapheme clusters (user-perceived characters)", "events with `text`"),
    Field("emoji", _keyword(64), "emoji in `text`, each once, in the fully-qualified spelling of Unicode; pictures such as ⏱ also without a variation selector, letters and arrows such as © only with one; a joined sequence (👩‍🚀) is one", "events with `text`"),
    Field("langs", _keyword(64), "languages, BCP 47 in canonical case (`pt-BR`); tags that are not in IANA's registry are omitted", f"`langs` of posts, languages of {_OTHER}"),
    Field("lang", _keyword(16), "primary subtags of `langs` (`pt`)", f"`langs` of posts, languages of {_OTHER}"),
    Field("alt", _TEXT, "alternative texts of images, videos and GIFs", f"embeds of posts; {_OTHER}"),
    Field("external.title", _TEXT, "title of a link card", "embeds of posts and live statuses"),
    Field("external.description", _TEXT, "description on a link card", "embeds of posts and live statuses"),
    Field("name", {"type": "text", "fields": {"keyword": _keyword(256)}}, "display name or title", "`displayName` of profiles, feeds, verifications; `name` of lists, starter packs, publications; `title` of documents; title of records of other applications"),
    Field("description", _TEXT, "description by the owner", "profiles, lists, feeds, starter packs, documents, publications, records of other applications"),
    Field("tags", _keyword(1024), "hashtags as written, without `#`, blanks around them and invisible characters", f"facets and `tags` of {_FACETED}; documents; {_OTHER}"),
    Field("tags_folded", _keyword(1024), "`tags` in one spelling for counting and filtering: without differences of case, width and compatibility forms, Turkish dotless i as i; tags of up to 640 characters", "events with `tags`"),
    Field("tags_text", _keyword(1024), "hashtags in `text` that are not in `tags`, folded like `tags_folded`", "events with `text`"),
    Field("mentions", _DID, "valid DIDs of mentioned accounts", f"facets of {_FACETED}; {_OTHER}"),
    Field("links", _LINK, "linked URIs, without those of GIFs in link cards", f"facets of {_FACETED}; link cards; websites of profiles, addresses of publications; {_OTHER}"),
    Field("domains", _keyword(256), "registrable domains of `links` in ASCII (`example.co.uk`); a public suffix is its own domain (`gov.uk`); none for hosts that cannot exist", "events with `links`"),
    Field("media.kinds", {"type": "keyword"}, "`image`, `video`, `gif`, `external` (a link card), `quote`, `record` (a list, feed …)", "embeds of posts and live statuses"),
    Field("media.count", _LONG, "number of images, videos and GIFs", "events with `media.kinds`"),
    Field("reply.root.uri", _URI, "first post of the thread", _POSTS),
    Field("reply.root.did", _DID, "author of the first post", _POSTS),
    Field("reply.parent.uri", _URI, "post that is replied to", _POSTS),
    Field("reply.parent.did", _DID, "author of that post", _POSTS),
    Field("quote.uri", _URI, "quoted post", "embeds of posts"),
    Field("quote.did", _DID, "author of the quoted post", "embeds of posts"),
    Field("subject.uri", _URI, "record that this record refers to", "likes, reposts, list blocks, thread and post gates, recommendations, subscriptions; `subject` of any other record"),
    Field("subject.did", _DID, "account that this record refers to, or author of `subject.uri`", "the same, and follows, blocks, list items, verifications"),
    Field("subject.collection", _NSID, "record type of `subject.uri`", "events with `subject.uri`"),
    Field("via.uri", _URI, "repost or starter pack through which the user found the subject", "likes, reposts, follows"),
    Field("via.did", _DID, "author of `via.uri`", "likes, reposts, follows"),
    Field("list.uri", _URI, "URI of the list", "list items, starter packs"),
    Field("list.did", _DID, "owner of the list", "list items, starter packs"),
    Field("labels", _keyword(256), "self-labels by the author", "posts, profiles, lists, feeds, labelers, documents, publications; records of other applications"),
    Field("spellings", _TEXT, "other spellings of words: without accents, with the other apostrophe, in the usual width, and the beginnings of Korean words", "events with such words in `text`, `alt`, `name` or `description`"),
    Field("other_record", {"type": "flattened", "depth_limit": 20, "ignore_above": FLAT_VALUE_LENGTH}, "complete record of a type without mapped fields; every value is a keyword", "record types without mapped fields"),
    Field("mistyped", {"type": "object", "enabled": False}, "values of the record, by path, that do not fit its mapping: of another type than the lexicon says, or of another application's type in an open union; not searchable", "records with such values, which are missing below `record`"),
    Field("jetstream.host", {"type": "keyword"}, "server that sent the event", "every event"),
    Field("jetstream.time_us", _LONG, "server time, Unix microseconds", "every event"),
    Field("jetstream.cursor", _LONG, "sequence number of the server", "every event of servers with sequence numbers"),
    Field("event.ingested", _DATE, "time of arrival at the worker", "every event"),
    Field("event.lag_ms", _LONG, "`event.ingested` minus `@timestamp`, milliseconds", "every event"),
    Field("event.hour", {"type": "keyword"}, "hour of `@timestamp` in UTC, `00` to `23`", "every event"),
    Field("event.weekday", {"type": "keyword"}, "weekday of `@timestamp` in UTC, `1 Mon` to `7 Sun`", "every event"),
    Field("redacted.at", _DATE, "when the content was removed", _REDACTED),
    Field("redacted.reason", _keyword(64), "why: `deleted`, `updated` (replaced by a newer version of the record), `account` (the account was deleted) or `request` (the operator removed it)", _REDACTED),
    Field("hidden", _BOOLEAN, "`true` while the account is not active; absent or `null` otherwise", "documents of accounts that are or were not active"),
    Field("backfill.at", _DATE, "when the event was read from an archive", _BACKFILL),
    Field("backfill.source", _keyword(256), "host of the archive", _BACKFILL),
    Field("event.pipeline_error", _keyword(1024), "error of the ingest pipeline", "the ingest pipeline"),
    Field("quarantine.error", _keyword(1024), "reason why Elasticsearch rejected the full document, so that its record is not searchable except for common fields: error type, field and reason without values, equal for equal errors", "quarantined events"),
    Field("quarantine.detail", {"type": "object", "enabled": False}, "complete error message of Elasticsearch, with position, document and value; not searchable", "quarantined events"),
    Field("quarantine.raw", {"type": "object", "enabled": False}, "original event as JSON text; not searchable", "quarantined events"),
)  # fmt: skip


def mapping() -> dict[str, Any]:
    """Return the `mappings` of the component template. Not dynamic: user data cannot add fields."""
    root: dict[str, Any] = {"dynamic": False, "properties": {}}
    for field in FIELDS:
        if field.mapping is None:
            continue
        *parents, last = field.path.split(".")
        node = root["properties"]
        for name in parents:
            node = node.setdefault(name, {"properties": {}})["properties"]
        node[last] = dict(field.mapping)
    return root
