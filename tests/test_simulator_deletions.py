"""Deletions and account events of the simulator: what happens to accounts, and bursts."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import orjson
import pytest

from slurp.simulator.__main__ import main
from slurp.simulator.event_generator import EventGenerator
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions
from tests.worker import expected

COUNT = 120_000
START = 1_795_464_168_637_452
STEP = 1000
Event = dict[str, Any]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    generator = EventGenerator(4, NetworkOptions(accounts=400))
    return [orjson.loads(generator.event(START + n * STEP, n + 1).frame) for n in range(COUNT)]


@pytest.fixture(scope="module")
def changes(events: list[Event]) -> dict[str, list[Event]]:
    """Account events by DID, in the order of the stream."""
    found = defaultdict(list)
    for event in events:
        if event["kind"] == "account":
            found[event["did"]].append(event["account"])
    return found


def is_migration(older: Event, newer: Event) -> bool:
    return bool(older["active"]) and not newer["active"] and newer["time"] < older["time"]


def test_account_events_have_all_kinds(changes: dict[str, list[Event]]) -> None:
    statuses = Counter(one.get("status", "active") for found in changes.values() for one in found)
    assert statuses.keys() == {"active", "deactivated", "takendown", "suspended", "deleted"}
    assert statuses["deleted"] > 20
    assert all(one["active"] == ("status" not in one) for found in changes.values() for one in found)


def test_an_inactive_account_writes_nothing(events: list[Event]) -> None:
    inactive: set[str] = set()
    newest: dict[str, str] = {}
    for event in events:
        did = event["did"]
        if event["kind"] != "account":
            assert did not in inactive
        elif event["account"]["time"] > newest.get(did, ""):
            newest[did] = event["account"]["time"]
            (inactive.discard if event["account"]["active"] else inactive.add)(did)
    assert inactive


def test_few_deleted_accounts_return(changes: dict[str, list[Event]]) -> None:
    deleted = returned = 0
    for found in changes.values():
        for number, one in enumerate(found):
            if one.get("status") != "deleted" or (number and is_migration(found[number - 1], one)):
                continue
            deleted += 1
            returned += any(later["active"] for later in found[number + 1 :])
    assert deleted > 20
    assert 0 < returned / deleted < 0.25


def test_a_deleted_account_is_replaced_by_a_new_one(events: list[Event]) -> None:
    writers = [{event["did"] for event in part} for part in (events[: COUNT // 2], events[COUNT // 2 :])]
    assert writers[1] - writers[0]
    assert len(writers[1]) == pytest.approx(len(writers[0]), rel=0.1)
    with_few = EventGenerator(4, NetworkOptions(accounts=2))
    for number in range(30_000):
        assert with_few.event(START + number, number).frame
    assert len(with_few.population.accounts) == 2


def test_the_old_host_of_a_migrated_account_reports_it_late(
    events: list[Event], changes: dict[str, list[Event]]
) -> None:
    migrated = {
        did
        for did, found in changes.items()
        for older, newer in itertools.pairwise(found)
        if is_migration(older, newer)
    }
    assert len(migrated) > 5
    after_leaving = {one["did"] for one in events[COUNT // 2 :] if one["kind"] == "commit"}
    assert migrated & after_leaving, "it continues to write"


def test_records_are_created_again_with_the_same_key(events: list[Event]) -> None:
    deleted: set[tuple[str, ...]] = set()
    exists: set[tuple[str, ...]] = set()
    again: Counter[str] = Counter()
    for event in events:
        if event["kind"] != "commit":
            continue
        commit = event["commit"]
        key = event["did"], commit["collection"], commit["rkey"]
        if commit["operation"] == "create":
            assert key not in exists
            exists.add(key)
            again[commit["collection"]] += key in deleted
        elif commit["operation"] == "delete":
            exists.discard(key)
            deleted.add(key)
    expected_again = ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow")
    assert all(again[name] for name in (*expected_again, "app.bsky.actor.profile", "app.bsky.actor.status"))
    assert sum(again.values()) < COUNT / 200


def test_an_account_with_many_records_is_deleted() -> None:
    with Simulator(seed=2) as simulator:
        did = simulator.generate(500).write_account(3000)
        assert len(simulator.delete_account(did).frames) == 3501
        simulator.generate(100)
    events = [orjson.loads(frame) for frame in simulator.frames]
    assert [event["cursor"] for event in events] == list(range(1, 3602))
    own = events[500:3501]
    assert {event["did"] for event in own} == {did}
    assert all(event["commit"]["operation"] == "create" for event in own[:-1])
    assert (own[-1]["account"]["active"], own[-1]["account"]["status"]) == (False, "deleted")
    assert not any(event["did"] == did for event in events[3501:])
    assert len(expected(simulator.frames)) == 3601
    with pytest.raises(KeyError):
        simulator.delete_account(did)


def test_many_records_are_deleted_one_by_one() -> None:
    simulator = Simulator(seed=2)
    did = simulator.write_account(1500)
    simulator.delete_records(did, 1200).delete_records(did)
    commits = [orjson.loads(frame)["commit"] for frame in simulator.frames]
    keys = [(one["collection"], one["rkey"]) for one in commits]
    assert [one["operation"] for one in commits] == ["create"] * 1500 + ["delete"] * 1500
    assert keys[1500:] == keys[1499::-1]
    assert [one["rev"] for one in commits] == sorted(one["rev"] for one in commits)
    assert len(simulator.delete_records(did).frames) == 3000


@pytest.mark.parametrize("delay", ["0s", "1s"])
def test_the_command_has_bursts(delay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Simulator] = []

    class Stop:
        def wait(self) -> None:
            simulator = seen[0]
            before = len(simulator.frames)
            assert before == (311 if delay == "0s" else 210)
            simulator.wait_until(lambda one: len(one.frames) == 311)

    start = Simulator.start

    def start_seen(simulator: Simulator) -> None:
        seen.append(simulator)
        start(simulator)

    monkeypatch.setattr(Simulator, "start", start_seen)
    options = ("--port", "0", "--rate", "0", "--count", "10", "--burst-delay", delay)
    assert main([*options, "--delete-account", "100", "--delete-records", "100"], Stop()) == 0  # type: ignore[arg-type]
    operations = Counter(orjson.loads(frame).get("commit", {}).get("operation") for frame in seen[0].frames)
    assert operations["delete"] >= 100
