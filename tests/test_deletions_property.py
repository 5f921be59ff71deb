"""Random histories of a few accounts, with retries, kills and failures: at rest the documents equal a model.

The model is computed from the events alone, by the rules of docs/deletions.md.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from elastic_transport import ConnectionError as NodeUnreachable
from elasticsearch import Elasticsearch

from slurp.elastic.client import FAILURES
from slurp.events import tid
from slurp.events.removals import TOLERANCE_US
from slurp.events.times import parse_time
from slurp.pipeline.ack_tracker import BatchAck
from tests.deleting_network import MINUTE, Network, id_of
from tests.harness import InProcess
from tests.worker import documents

DIDS = [f"did:plc:{letter * 24}" for letter in "abcd"]
RKEYS = ["self", "one", "two"]
STATUSES = ["deactivated", "takendown", "suspended", None, "deleted"]


def history(rng: random.Random, length: int, *, may_return: bool) -> list[bytes]:
    """Return the frames of random events. Deleted accounts return only if `may_return`."""
    network = Network()
    exists: set[tuple[str, str]] = set()
    deleted: set[str] = set()
    frames = []
    for _ in range(length):
        did, rkey = rng.choice(DIDS), rng.choice(RKEYS)
        chance = rng.random()
        if chance < 0.12:
            active = rng.random() < 0.5
            status = None if active else rng.choice(STATUSES)
            if did in deleted and active and not may_return:
                continue
            # One in four arrives late: its own time is before that of others.
            at = network.now_us - rng.randrange(9 * MINUTE) if rng.random() < 0.25 else None
            frames.append(network.account(active, status, did, at))
            if status == "deleted":
                deleted.add(did)
        elif chance < 0.15:
            frames.append(network.identity(f"h{rng.randrange(99)}.example", did))
        elif (did, rkey) not in exists:
            frames.append(network.commit("create", rkey, did))
            exists.add((did, rkey))
        elif chance < 0.55:
            frames.append(network.commit("update", rkey, did))
        else:
            frames.append(network.commit("delete", rkey, did))
            exists.discard((did, rkey))
        if rng.random() < 0.05:
            network.now_us += 4 * MINUTE
    return frames


@dataclass
class Model:
    """What may be stored after all events, by `_id`: `content`, `hidden`, or reasons of a tombstone."""

    wanted: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, frames: Sequence[bytes], *, delay_is_over: bool) -> Model:
        events = {id_of(frame): orjson.loads(frame) for frame in frames}
        removals: dict[str, list[tuple[str, str]]] = {}
        active: dict[str, int] = {}
        inactive: dict[str, int] = {}
        gone: dict[str, int] = {}
        for event in events.values():
            did = event["did"]
            if event["kind"] == "commit" and event["commit"]["operation"] != "create":
                reason = {"delete": "deleted", "update": "updated"}[event["commit"]["operation"]]
                uri = did + event["commit"]["rkey"]
                removals.setdefault(uri, []).append((event["commit"]["rev"], reason))
            elif event["kind"] == "account":
                account = event["account"]
                times = active if account["active"] else inactive
                times[did] = max(times.get(did, 0), _us(account["time"]))
                if account.get("status") == "deleted":
                    gone[did] = max(gone.get(did, 0), _us(account["time"]))
        model = cls()
        for doc_id, event in events.items():
            did, kind = event["did"], event["kind"]
            written = tid.to_micros(event["commit"]["rev"]) if kind == "commit" else event["time_us"]
            if kind == "account":
                written = _us(event["account"]["time"])
            assert written is not None
            is_deletion = kind == "account" and event["account"].get("status") == "deleted"
            if (
                delay_is_over
                and gone.get(did, 0) > active.get(did, 0)
                and written <= gone[did] + TOLERANCE_US
                and not is_deletion
            ):
                model.wanted[doc_id] = {"account"}
                continue
            if kind == "commit":
                later = removals.get(did + event["commit"]["rkey"], [])
                reasons = {reason for rev, reason in later if event["commit"]["rev"] < rev}
                if reasons and event["commit"]["operation"] != "delete":
                    model.wanted[doc_id] = reasons
                    continue
            is_hidden = (
                kind != "account"
                and inactive.get(did, 0) > active.get(did, 0)
                and written <= inactive[did] + TOLERANCE_US
            )
            model.wanted[doc_id] = {"hidden" if is_hidden else "content"}
        return model


def _us(text: str) -> int:
    micros = parse_time(text)
    assert micros is not None
    return micros


def state_of(document: dict[str, Any]) -> str:
    """Return the same for a document. A tombstone must have no content."""
    if "redacted" in document:
        allowed = {"@timestamp", "kind", "did", "uri", "commit", "event", "redacted"}
        assert document.keys() <= allowed, document.keys() - allowed
        return str(document["redacted"]["reason"])
    return "hidden" if document.get("hidden") is True else "content"


class Run:
    """The worker of one history, in the test process: it may be killed and started again at any time."""

    def __init__(self, first: InProcess, rng: random.Random, options: tuple[str, ...]) -> None:
        self._first = first
        self._rng = rng
        self._options = options
        self._saved = 0
        self.failing = True
        self.start()

    def start(self) -> None:
        """Start a worker at the saved checkpoint; one that ran before is forgotten."""
        url, folder = self._first.config.es[0], self._first.letters.path.parent
        self.worker = InProcess(url, self._first.index, folder, *self._options, setup=False)
        self.worker.deletions.load()

    def deliver(self, frames: list[bytes]) -> None:
        """Deliver the history from the checkpoint on, with retries, failures and kills while `failing`."""
        while True:
            rest = [frame for frame in frames if orjson.loads(frame)["cursor"] > self._saved]
            if self._deliver(rest):
                return
            self.start()

    def _deliver(self, frames: list[bytes]) -> bool:
        """Return False if the worker was killed."""
        rng, worker = self._rng, self.worker
        while frames:
            window = []
            for _ in range(rng.randrange(1, 4)):
                size = rng.randrange(1, 12)
                batch, frames = frames[:size], frames[size:]
                if batch and rng.random() < 0.3:
                    batch += batch[: rng.randrange(len(batch) + 1)]  # delivered twice
                if batch:
                    worker.put(sorted(batch, key=lambda frame: orjson.loads(frame)["cursor"]))
                    window.append(worker.channel.queue.get(1))
            rng.shuffle(window)  # retried: they are stored in another order
            indexer = worker.one_indexer()
            for queued in window:
                assert queued is not None
                outcome, ack = indexer._index(queued)
                if self._is_killed():
                    return False  # stored, not acknowledged
                worker.counters.acknowledged(queued, outcome, ack)
                worker.channel.queue.release(queued)
                if rng.random() < 0.3:
                    self._step()
                if rng.random() < 0.5:
                    self._save()
                if self._is_killed():
                    return False
        return True

    def settle(self) -> None:
        """Apply everything, without failures."""
        self.failing = False
        deadline = time.monotonic() + 60
        while self.worker.deletions.step() or self.worker.deletions.waiting:
            for one in self.worker.deletions._waiting:
                one.try_at = 0
            assert time.monotonic() < deadline
        self._save()

    def _step(self) -> None:
        try:
            self.worker.deletions.step()
        except FAILURES:
            assert self.failing

    def _save(self) -> None:
        for saveable in self.worker.counters.checkpoints():
            self._saved = max(self._saved, saveable.position.cursor or 0)

    def _is_killed(self) -> bool:
        return self.failing and self._rng.random() < 0.03


@pytest.fixture
def fail_sometimes(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Let the writes of the engine fail, before or after they are carried out, while a run is failing."""
    runs: list[Run] = []
    rng = random.Random(99)
    from slurp.elastic import bulk

    def send(*arguments: Any, **options: Any) -> Iterator[Any]:
        fails = runs and runs[0].failing
        if fails and rng.random() < 0.1:
            raise NodeUnreachable("lost before")
        items = list(bulk.send(*arguments, **options))
        if fails and rng.random() < 0.1:
            raise NodeUnreachable("lost after")
        yield from items

    monkeypatch.setattr("slurp.deletions.versions.send", send)
    monkeypatch.setattr("slurp.deletions.account_states.send", send)
    return runs


@pytest.mark.parametrize("seed", range(8))
def test_a_random_history_ends_as_the_model_says(
    indexer: InProcess, es: Elasticsearch, fail_sometimes: list[Run], seed: int
) -> None:
    rng = random.Random(seed)
    delay_is_over = seed % 2 == 1
    options = ("--deletions-delay", "0s" if delay_is_over else "24h", "--deletions-rate", "100000")
    frames = history(rng, 150, may_return=not delay_is_over)
    run = Run(indexer, rng, options)
    fail_sometimes.append(run)
    run.deliver(frames)
    run.settle()
    found = documents(es, indexer.index)
    model = Model.of(frames, delay_is_over=delay_is_over).wanted
    assert found.keys() == model.keys()
    states = {doc_id: state_of(document) for doc_id, document in found.items()}
    assert not {
        doc_id: (state, model[doc_id]) for doc_id, state in states.items() if state not in model[doc_id]
    }
    # A full replay changes nothing.
    run._saved = 0
    run.start()
    run.deliver(frames)
    run.settle()
    assert documents(es, indexer.index) == found


def test_a_create_still_in_retry_when_its_deletion_is_stored(
    indexer: InProcess, es: Elasticsearch, tmp_path: Path
) -> None:
    network = Network()
    create, delete = network.commit("create"), network.commit("delete")
    indexer.put([create])
    indexer.put([delete])
    first, second = (indexer.channel.queue.get(1) for _ in range(2))
    assert first is not None and second is not None
    outcome, ack = indexer.one_indexer()._index(second)
    indexer.counters.acknowledged(second, outcome, ack)
    assert isinstance(ack, BatchAck) and ack.removals
    indexer.deletions.step()
    assert documents(es, indexer.index).keys() == {id_of(delete)}
    assert not indexer.counters.checkpoints(), "the checkpoint is before the create"
    # kill -9 and restart: both are read again.
    again = InProcess(indexer.config.es[0], indexer.index, tmp_path, setup=False)
    again.deletions.load()
    again.feed([create, delete])
    again.deletions.step()
    found = documents(es, indexer.index)
    assert found.keys() == {id_of(create), id_of(delete)}
    assert found[id_of(create)]["redacted"]["reason"] == "deleted"
    assert again.counters.checkpoints()[0].is_end


@pytest.mark.cluster_wide
def test_no_index_has_the_words_of_a_deleted_post(indexer: InProcess, es: Elasticsearch) -> None:
    network = Network()
    word = "xylophonequartz"
    post = network.commit("create", text=f"about {word}")
    frames = [post, network.commit("update", text=f"more about {word}"), network.commit("delete")]
    for _ in range(2):  # and once more from 0
        indexer.feed(frames)
        indexer.deletions.step()
        es.indices.refresh(index="*")
        names = es.indices.get(index="*", expand_wildcards="all")
        assert any(name.startswith(indexer.index) for name in names)
        for name in names:
            hits = es.search(index=name, query={"match_all": {}}, size=10_000)["hits"]["hits"]
            if name.startswith((indexer.index, "skeetslurper-")):
                assert word not in str([hit["_source"] for hit in hits])
            found = es.search(
                index=name, query={"multi_match": {"query": word, "fields": ["*"], "lenient": True}}
            )
            assert not found["hits"]["hits"]
