"""A frame that raises an unexpected exception, or a silent cluster, does not end the worker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from elastic_transport import ConnectionTimeout

from slurp.documents import document, fast_path
from slurp.elastic import daily_indices as days_module
from slurp.elastic.bulk import Action
from slurp.elastic.error_classes import Item
from slurp.errors import describe_bug
from slurp.events import frames
from slurp.events.frames import BadFrame, parse, parse_notice
from slurp.jetstream.resyncs import ResyncTracker
from slurp.jetstream.streams import V1Stream, V2Stream
from slurp.pipeline import delivery
from slurp.pipeline import indexer as indexer_module
from tests.harness import InProcess, commit

_DEEP = "[" * 950 + "]" * 950
_INFO = "network.bsky.jetstream.subscribeEvents#info"


class UnexpectedError(Exception):
    """An exception that no code expects."""


ERRORS = [
    KeyError("facet\ud800"),
    AttributeError("no such thing"),
    UnexpectedError("?" * 10_000),
    IndexError(),
]


def raiser(error: Exception, trigger: bytes) -> Any:
    """Return a function that raises `error` for an argument that contains `trigger`."""

    def maybe(whole: Any) -> None:
        if trigger in (whole if isinstance(whole, bytes) else json.dumps(whole).encode()):
            raise error

    return maybe


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["build", "_look", "fast_path", "days"])
def test_a_frame_that_raises_any_exception_is_a_dead_letter(
    indexer: InProcess, monkeypatch: pytest.MonkeyPatch, error: Exception, step: str
) -> None:
    fail = raiser(error, b"post 3")
    frames = indexer.posts(6)
    if step == "build":
        build = document.build
        monkeypatch.setattr(indexer_module, "build", lambda event, *rest: fail(event) or build(event, *rest))
    elif step == "_look":
        look = indexer.unknown_fields.find
        monkeypatch.setattr(indexer.unknown_fields, "find", lambda event: fail(event) or look(event))
    elif step == "express":
        render = fast_path.FastPath.render
        monkeypatch.setattr(
            fast_path.FastPath, "render", lambda self, frame, *rest: fail(frame) or render(self, frame, *rest)
        )
    else:
        frames[3] = commit(3, {"text": "post 3"}, at=indexer.began - 86_400)

        def is_expired(day: int, seen_us: int | None = None) -> bool:
            if day != indexer.day:
                raise error
            return False

        monkeypatch.setattr(indexer.days, "is_expired", is_expired)
    counted = indexer.feed(frames)

    assert (counted.indexed, counted.dead_lettered, counted.in_flight) == (5, 1, 0)
    letter = orjson.loads(indexer.letters.path.read_bytes())
    assert letter["frame"].encode() == frames[3]
    assert f"which is a bug: {type(error).__name__}: " in letter["reason"]
    assert "(tests/test_unusable_frames.py:" in letter["reason"]
    assert len(letter["reason"]) < 1000


def test_a_document_that_cannot_be_quarantined_is_a_dead_letter(
    indexer: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(client: object, actions: Sequence[Action], *rest: object) -> list[Item]:
        return [
            Item(400, "document_parsing_exception", "x") if b"post 1" in action else Item(201)
            for action in actions
        ]

    def broken(*arguments: object) -> None:
        raise KeyError("did")

    monkeypatch.setattr(delivery, "send", reject)
    monkeypatch.setattr(indexer_module, "quarantined", broken)
    counted = indexer.feed(indexer.posts(4))

    assert (counted.indexed, counted.dead_lettered) == (3, 1)
    assert "KeyError" in orjson.loads(indexer.letters.path.read_bytes())["reason"]


def test_a_memory_error_is_not_a_dead_letter(indexer: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(indexer_module, "build", build)
    with pytest.raises(MemoryError):
        indexer.feed(indexer.posts(1))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_parsing_raises_only_bad_frame(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fail = raiser(error, b"text")
    monkeypatch.setattr(frames, "_check_commit", fail)
    bad = [commit(1, {}), commit(2, {"text": ""})]
    with pytest.raises(BadFrame, match=f"bug: {type(error).__name__}"):
        parse(bad[1])
    for stream in (V1Stream(None, None), V2Stream(None, None, None, ResyncTracker())):
        position = stream.decode(bad, "host").position
        assert position is not None
        assert position.cursor == 1, "the position of the valid frame"


@pytest.mark.parametrize(
    "frame",
    [
        f'{{"$type":"error","error":"Strange","message":{_DEEP}}}',
        f'{{"$type":"message","payload":{{"$type":"{_INFO}","name":{_DEEP}}}}}',
        f'{{"$type":{_DEEP}}}',
        _DEEP,
    ],
    ids=["message", "name", "type", "bare"],
)
def test_a_notice_may_contain_any_json(frame: str) -> None:
    parse_notice(frame.encode())
    V2Stream(None, None, None, ResyncTracker()).decode([frame.encode(), commit(1, {})], "host")


def test_a_bug_is_described_in_one_bounded_line() -> None:
    try:
        raise ValueError("\ud800" + "x" * 1000)
    except ValueError as error:
        text = describe_bug(error)
    assert text.startswith("ValueError: \\ud800xxx")
    assert "(tests/test_unusable_frames.py:" in text
    assert len(text.encode()) < 400


def test_the_backoff_is_reset_when_some_events_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = InProcess("http://127.0.0.1:9", "none", tmp_path, setup=False)
    waits: list[float] = []
    rounds = iter(range(100))

    def one_a_round(client: object, actions: Sequence[Action], *rest: object) -> list[Item]:
        # No event in the first rounds, then one in each.
        stored = 0 if next(rounds) < 4 else 1
        return [Item(201)] * stored + [Item(429, "es_rejected_execution_exception", "full")] * (
            len(actions) - stored
        )

    monkeypatch.setattr(delivery, "send", one_a_round)
    monkeypatch.setattr(inner.days, "ensure", lambda *arguments: None)
    monkeypatch.setattr(inner.shutdown, "wait", waits.append)
    counted = inner.feed(inner.posts(12))

    assert counted.indexed == 12
    assert waits[3] >= 0.8, "it grows without progress"
    assert max(waits[4:]) <= 0.2, "it does not grow with progress"


def test_indexers_that_wait_for_a_day_index_report_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = InProcess("http://127.0.0.1:9", "none", tmp_path, setup=False)
    hung, looks = threading.Event(), list[float]()

    def hang(*arguments: object) -> None:
        looks.append(time.monotonic())
        hung.wait(60)
        raise ConnectionTimeout("silent")

    monkeypatch.setattr(days_module, "_uuid_and_meta", hang)
    monkeypatch.setattr(days_module, "_HEARTBEAT_INTERVAL", 0.01, raising=False)
    beats = [0] * 10
    threads = []
    for number in range(10):

        def beat(number: int = number) -> None:
            beats[number] += 1

        inner.put(inner.posts(1, first=number))
        threads.append(threading.Thread(target=inner.one_indexer(beat).step, daemon=True))
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 20
        while sum(count > 20 for count in beats) < 9:
            assert time.monotonic() < until, (
                f"nine of ten wait for the first one and report heartbeats: {beats}"
            )
            time.sleep(0.01)
        assert len(looks) == 1
        # The first failure makes all of them hold their batches; none repeats the request.
        inner.shutdown.retry_until = time.monotonic()
        hung.set()
    finally:
        hung.set()
        for thread in threads:
            thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(looks) == 1
