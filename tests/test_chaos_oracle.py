"""The chaos oracle about deletions: it passes an ideal worker and detects each kind of failure."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from slurp.documents.document import build
from slurp.simulator.event_generator import EventGenerator
from slurp.simulator.options import NetworkOptions
from tests.chaos.deletion_model import Deletions
from tests.chaos.oracle import PublishedEvents, Verdict, digest

NOW = 1_795_464_168_637_452
AT_ONCE = Deletions.APPLY_AT_ONCE
Event = dict[str, Any]
Hit = dict[str, Any]


def document(event: Event) -> Hit:
    one = build(event, "host.example", event["time_us"], now_us=event["time_us"])
    return {"_index": f"i-{one.day}", "_id": one.id, "_source": orjson.loads(one.body)}


def redact(hit: Hit, reason: str) -> None:
    source = hit["_source"]
    names = ["@timestamp", "kind", "event"] + (["did", "uri"] if reason != "account" else [])
    inner = ["collection", "operation", "rev"] + (["rkey"] if reason != "account" else [])
    hit["_source"] = {name: source[name] for name in names} | {
        "redacted": {"at": "2026-11-23T20:02:48.637452Z", "reason": reason}
    }
    if "commit" in source:
        hit["_source"]["commit"] = {name: source["commit"][name] for name in inner}


class IdealWorker:
    """Applies the events in their order, each one completely before the next."""

    def __init__(self, deletions: Deletions) -> None:
        self.deletions = deletions
        self.hits: dict[str, Hit] = {}
        self.by_did: defaultdict[str, list[str]] = defaultdict(list)
        self.newest: dict[str, str] = {}

    def add(self, event: Event) -> None:
        hit = document(event)
        did, source = event["did"], hit["_source"]
        self.hits[hit["_id"]] = hit
        self.by_did[did].append(hit["_id"])
        operation = event.get("commit", {}).get("operation")
        if operation in ("delete", "update"):
            for other in self.of(did):
                if (
                    other.get("uri") == source["uri"]
                    and other["commit"]["rev"] < source["commit"]["rev"]
                    and other["commit"]["operation"] != "delete"
                    and "redacted" not in other
                ):
                    self.redact(other, {"delete": "deleted", "update": "updated"}[operation])
        elif event["kind"] == "account":
            self.change(event)

    def of(self, did: str) -> list[dict[str, Any]]:
        return [self.hits[doc_id]["_source"] for doc_id in self.by_did[did]]

    def redact(self, source: dict[str, Any], reason: str) -> None:
        hit = next(one for one in self.hits.values() if one["_source"] is source)
        redact(hit, reason)

    def change(self, event: Event) -> None:
        did, inner = event["did"], event["account"]
        if inner["time"] < self.newest.get(did, ""):
            return
        self.newest[did] = inner["time"]
        for source in self.of(did):
            if source["kind"] == "account" or "redacted" in source or inner["active"]:
                source.pop("hidden", None)
            else:
                source["hidden"] = True
        if inner.get("status") == "deleted" and self.deletions is AT_ONCE:
            for source in self.of(did):
                if source.get("account", {}).get("time") != inner["time"]:
                    self.redact(source, "account")


@pytest.fixture(scope="module")
def stream() -> list[bytes]:
    generator = EventGenerator(11, NetworkOptions(accounts=60, odd_revs=0.1))
    return [generator.event(NOW + number * 1000, number + 1).frame for number in range(6000)]


def published_and_stored(frames: list[bytes], deletions: Deletions) -> tuple[PublishedEvents, list[Hit]]:
    published, worker = PublishedEvents(deletions), IdealWorker(deletions)
    for frame in frames:
        published.add(frame)
        worker.add(orjson.loads(frame))
    return published, list(worker.hits.values())


@pytest.mark.parametrize("deletions", Deletions)
def test_the_oracle_passes_an_ideal_worker(stream: list[bytes], deletions: Deletions) -> None:
    published, hits = published_and_stored(stream, deletions)
    if deletions is Deletions.KEEP:
        hits = [document(orjson.loads(frame)) for frame in stream]
    verdict = published.compare(hits)
    assert verdict == Verdict(documents=6000, redacted=verdict.redacted, hidden=verdict.hidden)
    assert verdict.passed
    assert (verdict.redacted > 100, verdict.hidden > 0) == (deletions is not Deletions.KEEP,) * 2


@pytest.fixture(scope="module")
def applied(stream: list[bytes]) -> tuple[PublishedEvents, list[Hit]]:
    return published_and_stored(stream, AT_ONCE)


def first(hits: list[Hit], matches: Callable[[dict[str, Any]], object]) -> Hit:
    return next(hit for hit in hits if matches(hit["_source"]))


def of_reason(reason: str) -> Callable[[dict[str, Any]], bool]:
    return lambda source: bool(source.get("redacted", {}).get("reason") == reason)


def is_plain(source: dict[str, Any]) -> bool:
    return source["kind"] == "commit" and "redacted" not in source and "hidden" not in source


def is_like(source: dict[str, Any]) -> bool:
    return bool(source.get("commit", {}).get("collection") == "app.bsky.feed.like")


def is_account_deletion(source: dict[str, Any]) -> bool:
    return bool(source.get("account", {}).get("status") == "deleted")


def restored(hit: Hit, stream: list[bytes]) -> dict[str, Any]:
    """Return the `_source` with the content of the event."""
    documents = (document(orjson.loads(frame)) for frame in stream)
    return dict(next(one["_source"] for one in documents if one["_id"] == hit["_id"]))


def deleted_like(hits: list[Hit]) -> Hit:
    return first(hits, lambda source: of_reason("deleted")(source) and is_like(source))


Change = Callable[[list[Hit], list[bytes]], object]

DEFECTS: dict[str, tuple[Change, dict[str, int]]] = {
    "a deleted record keeps its content": (
        lambda hits, stream: (hit := deleted_like(hits)).update(_source=restored(hit, stream)),
        {"unredacted": 1, "redacted": -1},
    ),
    "a record of a deleted account keeps its content": (
        lambda hits, stream: (hit := first(hits, of_reason("account"))).update(_source=restored(hit, stream)),
        {"unredacted": 1, "redacted": -1},
    ),
    "a record that exists is redacted": (
        lambda hits, stream: redact(first(hits, is_plain), "deleted"),
        {"wrongly_redacted": 1, "redacted": 1},
    ),
    "the deletion of an account loses its DID": (
        lambda hits, stream: redact(
            first(hits, lambda source: is_account_deletion(source) and source["did"] in gone(hits)),
            "account",
        ),
        {"wrongly_redacted": 1, "redacted": 1},
    ),
    "a tombstone has another reason": (
        lambda hits, stream: deleted_like(hits)["_source"]["redacted"].update(reason="updated"),
        {"bad_tombstones": 1},
    ),
    "a tombstone has no time": (
        lambda hits, stream: deleted_like(hits)["_source"]["redacted"].pop("at"),
        {"bad_tombstones": 1},
    ),
    "a tombstone has no URI": (
        lambda hits, stream: deleted_like(hits)["_source"].pop("uri"),
        {"bad_tombstones": 1},
    ),
    "a tombstone keeps a common field": (
        lambda hits, stream: deleted_like(hits)["_source"].update(text="left over"),
        {"bad_tombstones": 1},
    ),
    "a tombstone keeps a CID": (
        lambda hits, stream: deleted_like(hits)["_source"]["commit"].update(cid="c"),
        {"bad_tombstones": 1},
    ),
    "a tombstone of an account keeps its DID": (
        lambda hits, stream: first(hits, of_reason("account"))["_source"].update(did="did:plc:x"),
        {"bad_tombstones": 1},
    ),
    "a tombstone of an account keeps a record key": (
        lambda hits, stream: first(
            hits, lambda source: of_reason("account")(source) and source["kind"] == "commit"
        )["_source"]["commit"].update(rkey="self"),
        {"bad_tombstones": 1},
    ),
    "an active account is hidden": (
        lambda hits, stream: first(hits, is_plain)["_source"].update(hidden=True),
        {"wrongly_hidden": 1, "hidden": 1},
    ),
    "an account event is hidden": (
        lambda hits, stream: first(hits, is_account_deletion)["_source"].update(hidden=True),
        {"wrongly_hidden": 1, "hidden": 1},
    ),
    "an inactive account is not hidden": (
        lambda hits, stream: first(hits, lambda source: "hidden" in source)["_source"].pop("hidden"),
        {"not_hidden": 1, "hidden": -1},
    ),
    "a tombstone is lost": (
        lambda hits, stream: hits.remove(deleted_like(hits)),
        {"lost": 1, "redacted": -1, "documents": -1},
    ),
    "a tombstone is stored in two indices": (
        lambda hits, stream: hits.append({**deleted_like(hits), "_index": "another"}),
        {"duplicates": 1, "redacted": 1, "documents": 1},
    ),
    "a tombstone has another id": (
        lambda hits, stream: deleted_like(hits).update(_id="another"),
        {"lost": 1, "unknown": 1},
    ),
    "a record loses its content without a tombstone": (
        lambda hits, stream: first(hits, lambda source: is_plain(source) and "record" in source)[
            "_source"
        ].pop("commit"),
        {"lost": 1, "unknown": 1},
    ),
}


def gone(hits: list[Hit]) -> set[str]:
    """Return the DIDs of which nothing but the deletion of the account is left."""
    kinds = defaultdict(list)
    for hit in hits:
        if did := hit["_source"].get("did"):
            kinds[did].append(is_account_deletion(hit["_source"]))
    return {did for did, found in kinds.items() if found == [True]}


@pytest.mark.parametrize("name", DEFECTS)
def test_the_oracle_detects_a_defect(
    name: str, stream: list[bytes], applied: tuple[PublishedEvents, list[Hit]]
) -> None:
    published, hits = applied
    before, hits = published.compare(hits), copy.deepcopy(hits)
    assert before.passed
    change, differences = DEFECTS[name]
    change(hits, stream)
    verdict = published.compare(hits)
    assert not verdict.passed
    counts = {key: value - getattr(before, key) for key, value in vars(verdict).items()}
    assert {key: value for key, value in counts.items() if value} == differences


def test_with_keep_every_tombstone_and_hidden_document_is_a_failure(
    stream: list[bytes], applied: tuple[PublishedEvents, list[Hit]]
) -> None:
    published = PublishedEvents(Deletions.KEEP)
    for frame in stream:
        published.add(frame)
    verdict = published.compare(applied[1])
    assert verdict.wrongly_redacted == verdict.redacted > 0
    assert verdict.wrongly_hidden == verdict.hidden > 0
    assert verdict.delivered


def test_hidden_null_is_not_hidden(applied: tuple[PublishedEvents, list[Hit]]) -> None:
    published, hits = applied
    hits = copy.deepcopy(hits)
    for hit in hits:
        hit["_source"].setdefault("hidden", None)
    assert published.compare(hits).passed


# The digest


def test_the_digest_ignores_order_and_arrival(applied: tuple[PublishedEvents, list[Hit]]) -> None:
    _, hits = applied
    changed = copy.deepcopy(hits[::-1])
    for hit in changed:
        hit["_source"]["event"] |= {"ingested": "later", "lag_ms": 5}
        hit["_source"].setdefault("hidden", None)
    assert digest(changed) == digest(hits) == digest(iter(hits))


@pytest.mark.parametrize("name", DEFECTS)
def test_the_digest_detects_every_change(
    name: str, stream: list[bytes], applied: tuple[PublishedEvents, list[Hit]]
) -> None:
    hits = copy.deepcopy(applied[1])
    DEFECTS[name][0](hits, stream)
    assert digest(hits) != digest(applied[1])
