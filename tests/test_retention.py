"""Deletion of days past retention, on a real node, with the clocks set by the tests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.days import Clocks, day_of_index
from slurp.elastic.lifecycle import (
    ANNOUNCEMENT_PERIOD,
    CHECK_INTERVAL,
    Retention,
    RetentionOptions,
    enforced_retention,
)
from slurp.elastic.setup import Setup
from slurp.embedded.node import EmbeddedNode
from slurp.events.times import day_of
from slurp.lexicons import committed
from slurp.logs import Secrets


class Clock:
    """A clock that a test sets. It starts at the current time and stands still, also at midnight."""

    def __init__(self) -> None:
        self.now = time.time()
        self.day = int(self.now) // 86_400

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def index(es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str) -> str:
    config = parse(["--es", es_node.url, "--index", fresh_index_prefix], {})
    Setup(config, committed()).run(es)
    return fresh_index_prefix


@pytest.fixture
def elastic(es_node: EmbeddedNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Elastic:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Elastic(parse(["--es", es_node.url], {}), Secrets(()))


def create_days(es: Elasticsearch, index: str, *days: int) -> list[str]:
    """Create daily indices and return their names."""
    names = [f"{index}-{day_of(day)}" for day in days]
    for name in names:
        es.indices.create(index=name)
    return names


def retention_of(
    elastic: Elastic, index: str, days: int | None, clock: Clock, monotonic: Clock | None = None
) -> Retention:
    """Return a new retention of an index, as after a start, with the clocks of the test."""
    clocks = Clocks(earliest=clock, monotonic=monotonic or clock)
    return Retention(elastic, RetentionOptions(index, days), clocks)


def remaining(es: Elasticsearch, index: str) -> set[str]:
    """Return the names of the existing indices."""
    return set(es.indices.get(index=f"{index}-*"))


def test_only_managed_day_indices_are_deleted_by_the_day_in_their_name(
    es: Elasticsearch, elastic: Elastic, index: str, clock: Clock
) -> None:
    expired, kept, today = create_days(es, index, clock.day - 4, clock.day - 3, clock.day)
    of_0_1_0 = f"{index}-{day_of(clock.day - 5)}"
    meta = {"skeetslurper": {"version": "0.1.0", "hash": "0123456789abcdef"}}
    es.indices.create(index=of_0_1_0, mappings={"dynamic": False, "_meta": meta})
    similar = [
        f"{index}-{day_of(clock.day - 9)}-copy",
        f"{index}-2020-01-01",
        f"{index}-2020.13.01",
        f"{index}-x-{day_of(clock.day - 9)}",
    ]
    for name in similar:
        es.indices.create(index=name)
    unmanaged = f"{index}-{day_of(clock.day - 9)}"
    es.indices.put_index_template(name=f"{index}z", index_patterns=[unmanaged], priority=900)
    es.indices.create(index=unmanaged)
    retention_of(elastic, index, 3, clock).step()
    assert remaining(es, index) == {kept, today, unmanaged, *similar}
    assert expired not in remaining(es, index)


def test_the_retention_is_checked_once_an_hour(
    es: Elasticsearch, elastic: Elastic, index: str, clock: Clock
) -> None:
    retention = retention_of(elastic, index, 3, clock)
    retention.step()
    create_days(es, index, clock.day - 5)
    clock.now += CHECK_INTERVAL - 60
    retention.step()
    assert remaining(es, index)
    clock.now += 60
    retention.step()
    assert not remaining(es, index)


def test_a_shorter_retention_is_announced_ten_minutes_before(
    es: Elasticsearch, elastic: Elastic, index: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    create_days(es, index, clock.day - 10, clock.day)
    retention_of(elastic, index, None, clock).step()
    assert len(remaining(es, index)) == 2
    for _ in range(2):  # a restart within the ten minutes announces it again
        caplog.clear()
        retention = retention_of(elastic, index, 5, clock)
        retention.step()
        assert "in 10 minutes 1 index(es) will be deleted" in caplog.text
        assert f"{index}-{day_of(clock.day - 10)}" in caplog.text
        clock.now += ANNOUNCEMENT_PERIOD - 1
        retention.step()
        assert len(remaining(es, index)) == 2
    clock.now += 1
    retention.step()
    assert remaining(es, index) == {f"{index}-{day_of(clock.day)}"}
    document = enforced_retention(es, index)
    assert document is not None
    assert document["retention_days"] == 5

    create_days(es, index, clock.day - 6)
    retention_of(elastic, index, 5, clock).step()
    assert len(remaining(es, index)) == 1, "an unchanged retention is not announced"


def test_setting_the_clock_does_not_change_the_announcement_period(
    es: Elasticsearch, elastic: Elastic, index: str, clock: Clock
) -> None:
    create_days(es, index, clock.day - 10, clock.day)
    retention_of(elastic, index, None, clock).step()
    monotonic = Clock()
    retention = retention_of(elastic, index, 5, clock, monotonic)
    assert retention.step()
    for jump in (6 * 3600, -12 * 3600):
        clock.now += jump
        assert not retention.step()
    assert len(remaining(es, index)) == 2
    clock.now -= 48 * 3600
    monotonic.now += ANNOUNCEMENT_PERIOD
    assert retention.step(), "a clock that is set back does not delay the check"


def test_a_day_is_read_only_from_an_exact_index_name() -> None:
    assert day_of_index("a.b", "a.b-1970.01.02") == 1
    for name in ("a.b-1970.1.2", "aXb-1970.01.02", "a.b-1970.02.30", "a.b-1970.01.02\n", "a.b-1970.01.02-x"):
        assert day_of_index("a.b", name) is None
