"""Random histories with late events, replays and kills: the rows are those of one computation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from slurp.elastic.templates import STATE_INDEX
from slurp.trends import measures
from slurp.trends.intervals import HOUR_US
from slurp.trends.task import TrendsTask
from tests.deleting_network import Network
from tests.harness import InProcess
from tests.test_trends import FOLLOW, POST, TRENDS, Trial, all_rows, like, person, record, uri_of
from tests.tiers import slow_except


class Killed(BaseException):
    """The process of the task was killed."""


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[random.Random]:
    """Kill the task before or after one in ten requests while the list has a random generator."""
    active: list[random.Random] = []

    def killing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if active and active[0].random() < 0.03:
                raise Killed
            result = real(*arguments, **options)
            if active and active[0].random() < 0.03:
                raise Killed
            return result

        return call

    for target in (
        "slurp.elastic.trend_rows.TrendRows._send",
        "slurp.elastic.trend_rows.TrendRows.refresh",
        "slurp.elastic.trend_rows.TrendRows.remove_older",
        "slurp.trends.computing.Trends._search",
        "slurp.trends.state.Lease._store",
    ):
        module, _, name = target.rpartition(".")
        owner_module, _, owner = module.rpartition(".")
        cls = getattr(__import__(owner_module, fromlist=[owner]), owner)
        monkeypatch.setattr(cls, name, killing(getattr(cls, name)))
    return active


def history(rng: random.Random, network: Network) -> Iterator[bytes]:
    """Yield events of six hours around midnight, one in five of them late."""
    now_us, posts = network.now_us, list[str]()
    for _ in range(300):
        now_us += rng.randrange(6 * HOUR_US // 300)
        network.now_us = now_us - (rng.randrange(5 * HOUR_US) if rng.random() < 0.2 else 0)
        chance = rng.random()
        if chance < 0.3 or not posts:
            tags = [f"tag{rng.randrange(20)}"]
            frame = record(network, POST, person(rng.randrange(30)), text="x", tags=tags, langs=["en"])
            posts.append(uri_of(frame))
        elif chance < 0.9:
            frame = like(network, person(rng.randrange(30)), rng.choice(posts))
        else:
            frame = record(network, FOLLOW, person(rng.randrange(30)), subject=person(rng.randrange(30)))
        yield frame
    network.now_us = now_us


def comparable(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Return all that a computation decides; the order of equal counts is decided by their keys."""
    left_out = {"generation", "computed_at"}
    return {
        tuple(sorted((name, str(one)) for name, one in row.items() if name not in left_out)) for row in rows
    }


@pytest.mark.parametrize("seed", slow_except(list(range(4)), 0))
def test_rows_equal_those_that_are_computed_from_scratch(
    indexer: InProcess, kills: list[random.Random], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "TOP", 6)  # so that values leave the lists
    rng = random.Random(seed)
    network = Network()
    day_us = 24 * HOUR_US
    network.now_us -= network.now_us % day_us + 3 * HOUR_US  # three hours before a midnight
    trial = Trial(indexer, network.now_us)
    frames = list(history(rng, network))
    kills.append(rng)
    at = 0
    while at < len(frames):
        size = rng.randrange(1, 40)
        again = rng.randrange(at + 1) if rng.random() < 0.2 else at  # a replay
        indexer.feed(frames[again : at + size])
        at += size
        trial.newest_us += 6 * HOUR_US * size // len(frames)
        try:
            trial.step()
        except Killed:
            trial.task = trial.another()
        if rng.random() < 0.2:
            trial.task = trial.another()
    kills.clear()
    settle(trial, trial.task)
    found = comparable(all_rows(indexer))
    # From scratch.
    es = indexer.elastic.client
    for hit in es.search(index=TRENDS, query={"term": {"index": indexer.index}}, size=10_000)["hits"]["hits"]:
        es.delete(index=TRENDS, id=hit["_id"])
    es.delete(index=STATE_INDEX, id=f"trends:{indexer.index}", refresh=True)
    trial.task = trial.another()
    settle(trial, trial.task)
    again_found = comparable(all_rows(indexer))
    assert len(again_found) > 300
    assert found == again_found


def settle(trial: Trial, task: TrendsTask) -> None:
    """Compute until nothing is due any more."""
    for _ in range(6):
        trial.step(2 * 3600)
    assert trial.task is task
