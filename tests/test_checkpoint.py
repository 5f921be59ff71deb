"""Which of the saved places counts, on a real node."""

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
    """The checkpoints of one subscription, as the next run of the worker has them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse(["--es", es_node.url, "--index", fresh_index_prefix], {})
    Setup(config, committed()).run(es)
    return lambda: Checkpoints(Elastic(config, Secrets(())), Subscription.of(config))


def at(host: str, cursor: int | None, seconds: float, started: bool = False) -> Checkpoint:
    return Checkpoint(Position(host, cursor, NOON + int(seconds * SECOND)), started=started, clean=False)


def farthest(run: Checkpoints) -> Position:
    return run.load()[0].position


def test_a_replay_on_another_host_does_not_outlive_its_run(new_run: NewRun) -> None:
    first = new_run()
    first.save(at("a", 1000, 0))
    replay = new_run()
    replay.load()
    assert not replay.save(at("b", 10, -86_400))
    assert not replay.save(at("b", 20, -301))
    assert farthest(new_run()) == at("a", 1000, 0).position
    # As far back as a change of hosts goes by itself.
    assert replay.save(at("b", 30, -299))
    assert farthest(new_run()) == at("a", 1000, 0).position
    assert replay.save(at("b", 40, 1))
    assert farthest(new_run()) == at("b", 40, 1).position


def test_the_farthest_counts_and_not_the_last_written(new_run: NewRun) -> None:
    run = new_run()
    run.save(at("a", 1000, -100))
    run.save(at("b", 7, 0))
    run.save(at("a", 1001, -99))
    assert farthest(new_run()) == at("b", 7, 0).position
    run.save(at("a", 1002, 0))
    assert farthest(new_run()) == at("a", 1002, 0).position, "the later of two at one time"


def test_a_checkpoint_of_the_version_before_is_read(
    new_run: NewRun, es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a `trail` as well."""
    run = new_run()
    document = run._document
    monkeypatch.setattr(run, "_document", lambda one: {**document(one), "trail": [[900, NOON], [990, NOON]]})
    run.save(at("a", 1000, 0))
    later = new_run()
    (found,) = later.load()
    assert found == at("a", 1000, 0)
    assert later.save(at("a", 1001, 1))


def test_a_first_start_is_saved_wherever_it_begins(new_run: NewRun) -> None:
    run = new_run()
    assert run.load() == []
    assert run.save(Checkpoint(Position("a", 0, 0), started=True, clean=True))
    assert run.save(at("b", 1, 0)), "the next host goes on from there"
    assert farthest(new_run()) == at("b", 1, 0).position


def test_a_late_write_of_a_killed_worker_stops_nothing(new_run: NewRun) -> None:
    killed = new_run()
    killed.save(at("a.example", 1000, 0))
    run = new_run()
    run.load()
    killed.save(at("a.example", 2000, 1))
    assert run.save(at("a.example", 1500, 2))
    assert farthest(new_run()).cursor == 1500, "what this run has acknowledged"


def test_two_workers_that_write_the_same_checkpoint_are_an_error(new_run: NewRun) -> None:
    first, second = new_run(), new_run()
    first.save(at("a.example", 1000, 0))
    second.load()
    with pytest.raises(Fatal, match="another worker writes the checkpoint"):
        for number in range(1, 4):
            second.save(at("a.example", 1000 + number, number))
            first.save(at("a.example", 1000 + number, number))
