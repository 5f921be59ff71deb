"""Which of several saved checkpoints a run resumes from, on a real node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.setup import Setup
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Fatal
from slurp.events.position import Position
from slurp.jetstream.subscription import Subscription
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.pipeline.checkpoint import Checkpoint, Checkpoints

SECOND = 1_000_000
NOON = 1_795_000_000 * SECOND

NewRun = Callable[[], Checkpoints]


@pytest.fixture
def new_run(
    es: Elasticsearch,
    es_node: EmbeddedNode,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> NewRun:
    """Return a function that starts a new run of the worker: its `Checkpoints` of one subscription."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse(["--es", es_node.url, "--index", fresh_index_prefix], {})
    Setup(config, committed()).run(es)
    return lambda: Checkpoints(Elastic(config, Secrets(())), Subscription.of(config))


def at(host: str, cursor: int | None, seconds: float, started: bool = False) -> Checkpoint:
    """Return a checkpoint whose newest event is `seconds` after `NOON`."""
    return Checkpoint(Position(host, cursor, NOON + int(seconds * SECOND)), is_start=started, clean=False)


def latest(run: Checkpoints) -> Position:
    """Return the position that the run resumes from."""
    return run.load()[0].position


def test_a_replay_on_another_host_does_not_replace_the_checkpoint(new_run: NewRun) -> None:
    first = new_run()
    first.save(at("a", 1000, 0))
    replay = new_run()
    replay.load()
    assert not replay.save(at("b", 10, -86_400))
    assert not replay.save(at("b", 20, -301))
    assert latest(new_run()) == at("a", 1000, 0).position
    # 300 s back at most, as a failover to another host rewinds.
    assert replay.save(at("b", 30, -299))
    assert latest(new_run()) == at("a", 1000, 0).position
    assert replay.save(at("b", 40, 1))
    assert latest(new_run()) == at("b", 40, 1).position


def test_the_latest_checkpoint_is_loaded_not_the_last_written(new_run: NewRun) -> None:
    run = new_run()
    run.save(at("a", 1000, -100))
    run.save(at("b", 7, 0))
    run.save(at("a", 1001, -99))
    assert latest(new_run()) == at("b", 7, 0).position
    run.save(at("a", 1002, 0))
    assert latest(new_run()) == at("a", 1002, 0).position, "the last written of two with the same time"


def test_a_checkpoint_of_the_previous_version_is_loaded(
    new_run: NewRun, es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a checkpoint that also has the field `trail`."""
    run = new_run()
    document = run._document
    monkeypatch.setattr(
        run, "_document", lambda checkpoint: {**document(checkpoint), "trail": [[900, NOON], [990, NOON]]}
    )
    run.save(at("a", 1000, 0))
    later = new_run()
    (found,) = later.load()
    assert found == at("a", 1000, 0)
    assert later.save(at("a", 1001, 1))


def test_the_first_checkpoint_is_saved_whatever_its_position(new_run: NewRun) -> None:
    run = new_run()
    assert run.load() == []
    assert run.save(Checkpoint(Position("a", 0, 0), is_start=True, clean=True))
    assert run.save(at("b", 1, 0)), "the next host resumes from there"
    assert latest(new_run()) == at("b", 1, 0).position


def test_a_late_write_of_a_killed_worker_is_overwritten(new_run: NewRun) -> None:
    killed = new_run()
    killed.save(at("a.example", 1000, 0))
    run = new_run()
    run.load()
    killed.save(at("a.example", 2000, 1))
    assert run.save(at("a.example", 1500, 2))
    assert latest(new_run()).cursor == 1500, "the checkpoint of the current run"


def test_two_workers_that_write_the_same_checkpoint_are_an_error(new_run: NewRun) -> None:
    first, second = new_run(), new_run()
    first.save(at("a.example", 1000, 0))
    second.load()
    with pytest.raises(Fatal, match="another worker writes the checkpoint"):
        for number in range(1, 4):
            second.save(at("a.example", 1000 + number, number))
            first.save(at("a.example", 1000 + number, number))
