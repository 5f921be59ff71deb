"""Nightly merges of past days with deleted documents, on a real node, with the clock set by the tests."""

from __future__ import annotations

import re
import time

import pytest
from elasticsearch import Elasticsearch, helpers

from slurp.elastic.client import Elastic
from slurp.elastic.days import SECONDS_PER_DAY, Clocks
from slurp.elastic.expunge import CHECK_INTERVAL, Expunge
from slurp.elastic.templates import EXPUNGE_DELETES_ALLOWED
from slurp.events.times import day_of
from tests.harness import until
from tests.test_retention import Clock, elastic, index  # noqa: F401 - fixtures

HOUR = 3600
SETTING = "index.merge.policy.expunge_deletes_allowed"


class Trial:
    """The nightly task of one `--index`, at half past three."""

    def __init__(self, elastic: Elastic, index: str) -> None:  # noqa: F811
        self.clock, self.monotonic = Clock(), Clock()
        self.today = self.clock.day
        self.index = index
        self.set_hour(3.5)
        self.expunge = Expunge(elastic, index, Clocks(now=self.clock, monotonic=self.monotonic))

    def set_hour(self, hour: float, days: int = 0) -> None:
        """Set the clock to an hour of today, or of `days` later."""
        self.clock.now = (self.today + days) * SECONDS_PER_DAY + hour * HOUR

    def step(self) -> bool:
        """Run the task a minute after the last time."""
        self.monotonic.now += CHECK_INTERVAL
        return self.expunge.step()

    def finish(self) -> None:
        """Run the task until there is nothing more to do in this night."""
        while self.step():
            time.sleep(0.1)

    def name(self, age: int) -> str:
        """Return the name of the index of the day `age` days ago."""
        return f"{self.index}-{day_of(self.today - age)}"


@pytest.fixture
def trial(elastic: Elastic, index: str, caplog: pytest.LogCaptureFixture) -> Trial:  # noqa: F811
    caplog.set_level("INFO", logger="slurp.elastic.expunge")
    return Trial(elastic, index)


def fill(es: Elasticsearch, name: str, deleted: int, **create: object) -> None:
    """Create an index of 1,000 documents, of which some were overwritten in a later segment."""
    es.indices.create(index=name, **create)  # type: ignore[arg-type]
    for count in (1000, deleted):
        helpers.bulk(es, ({"_index": name, "_id": str(number)} for number in range(count)))
        es.indices.refresh(index=name)


def deleted(es: Elasticsearch, name: str) -> int:
    return int(es.indices.stats(index=name, metric="docs")["_all"]["primaries"]["docs"]["deleted"])


def merged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the indices whose merge was started, by the log."""
    return [found[1] for line in caplog.messages if (found := re.match(r"merging (\S+), as", line))]


def test_past_days_with_many_deleted_documents_are_merged_one_after_the_other(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    for age, overwritten in {0: 500, 1: 500, 2: 60, 3: 200, 4: 40, 5: 0}.items():
        fill(es, trial.name(age), overwritten)
    fill(es, f"{trial.index}-other", 500)
    assert trial.step()
    assert merged(caplog) == [trial.name(3)], "one at a time, the largest share first"
    assert "as 200 of 1,200 documents were overwritten or deleted" in caplog.text
    assert not trial.expunge.step(), "a minute has not passed"
    trial.finish()
    assert merged(caplog) == [trial.name(3), trial.name(2)]
    assert caplog.text.count("deleted documents were removed from disk") == 2
    caplog.clear()
    trial.set_hour(3.5, days=1)
    trial.finish()
    assert trial.name(1) in merged(caplog), "it is older than yesterday now"


@pytest.mark.parametrize("hour", [0.0, 2.99, 4.0, 15.5])
def test_nothing_is_merged_during_the_day(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture, hour: float
) -> None:
    fill(es, trial.name(2), 500)
    trial.set_hour(hour)
    assert not trial.step()
    assert merged(caplog) == []


def test_an_index_that_was_not_created_by_this_program_is_left_alone(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(es, trial.name(2), 500)
    es.indices.put_mapping(index=trial.name(2), meta={"owner": "somebody else"})
    trial.finish()
    assert merged(caplog) == []


def test_a_day_of_an_earlier_version_gets_the_setting_and_a_chosen_one_is_kept(
    trial: Trial, es: Elasticsearch
) -> None:
    for age, value in {2: None, 3: 20}.items():
        fill(es, trial.name(age), 100)
        es.indices.put_settings(index=trial.name(age), settings={SETTING: value})
    trial.finish()
    found = es.indices.get_settings(index=f"{trial.index}-*", name=SETTING, flat_settings=True)
    values = {name: body["settings"][SETTING] for name, body in found.items()}
    assert values == {trial.name(2): str(EXPUNGE_DELETES_ALLOWED), trial.name(3): "20"}


@pytest.mark.slow
def test_the_content_of_deleted_documents_leaves_the_disk(trial: Trial, es: Elasticsearch) -> None:
    # Elasticsearch keeps deleted documents for a recovery, 12 hours by default.
    settings = {"index.soft_deletes.retention_lease.period": "1s"}
    fill(es, trial.name(2), 80, settings=settings)
    fill(es, trial.name(3), 40, settings=settings)

    def is_merged() -> bool:
        trial.set_hour(3.5, days=0 if trial.clock.now // SECONDS_PER_DAY != trial.today else 1)
        trial.step()
        return deleted(es, trial.name(2)) == 0

    until(is_merged, 120)
    assert deleted(es, trial.name(3)) == 40, "below the share that is worth a merge"
    assert es.count(index=trial.name(2))["count"] == 1000
