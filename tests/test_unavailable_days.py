"""Daily indices of a real node that cannot be searched for a time, and what they get afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from slurp.deletions import records as records_of
from slurp.deletions import unavailable_days
from slurp.deletions.account_states import AccountState
from slurp.deletions.versions import utc_now
from slurp.elastic.client import FAILURES
from tests.deleting_network import MINUTE, OTHER, Network, deleting, id_of, settle
from tests.harness import InProcess
from tests.worker import documents

DAY = 24 * 60 * MINUTE
STATE_INDEX = "skeetslurper-state"


@pytest.fixture
def network() -> Network:
    return Network()


def the_day(es: Elasticsearch, indexer: InProcess) -> str:
    [day] = es.indices.get(index=f"{indexer.index}-*")
    return str(day)


def records(es: Elasticsearch, indexer: InProcess) -> list[dict[str, object]]:
    """Return what is stored about unavailable days."""
    es.indices.refresh(index=STATE_INDEX)
    query = {"bool": {"filter": [{"term": {"type": "unavailable-day"}}, {"term": {"index": indexer.index}}]}}
    return [hit["_source"] for hit in es.search(index=STATE_INDEX, query=query)["hits"]["hits"]]


def reopen(es: Elasticsearch, day: str) -> None:
    es.indices.open(index=day)
    es.cluster.health(index=day, wait_for_status="yellow")


def retry_now(indexer: InProcess) -> None:
    """Let the next step do what is due each minute."""
    indexer.deletions._retry_at = 0
    for one in indexer.deletions._waiting:
        one.try_at = 0


def test_a_closed_day_gets_what_it_missed_once_it_is_open(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    post = network.commit("create", at=network.now_us - DAY)
    kept = network.commit("create", "kept", at=network.now_us - DAY + 1000)
    hidden = network.commit("create", did=OTHER, at=network.now_us - DAY)
    indexer.feed([post, kept, hidden])
    old = the_day(es, indexer)
    es.indices.close(index=old)
    indexer.feed([network.commit("delete"), network.account(False, "takendown", OTHER)])
    settle(indexer)
    reopen(es, old)
    retry_now(indexer)
    settle(indexer)
    found = documents(es, indexer.index)
    assert found[id_of(post)]["redacted"]["reason"] == "deleted"
    assert found[id_of(kept)]["text"]
    assert found[id_of(hidden)]["hidden"] is True
    assert not records(es, indexer)


def test_a_closed_day_gets_deletions_that_arrived_long_before_and_were_not_applied(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    """The worker was killed, and the day was closed before the worker started again."""
    post = network.commit("create", at=network.now_us - DAY)
    indexer.feed([post])
    old = the_day(es, indexer)
    deletion = network.commit("delete", at=network.now_us - DAY // 2)
    indexer.feed([deletion])
    for day in es.indices.get(index=f"{indexer.index}-*"):
        for hit in es.search(index=day, query={"ids": {"values": [id_of(deletion)]}})["hits"]["hits"]:
            arrived = (utc_now() - timedelta(hours=9)).isoformat(timespec="milliseconds")
            es.update(index=day, id=hit["_id"], doc={"event": {"ingested": arrived}})
    es.indices.close(index=old)
    again = deleting(indexer)
    again.feed([deletion])
    settle(again)
    reopen(es, old)
    retry_now(again)
    settle(again)
    assert documents(es, indexer.index)[id_of(post)]["redacted"]["reason"] == "deleted"


def test_a_closed_day_gets_the_redaction_of_an_account_that_was_due_meanwhile(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h")
    old_post, gone = network.commit("create", at=network.now_us - DAY), network.account(False, "deleted")
    back_post = network.commit("create", did=OTHER, at=network.now_us - DAY)
    indexer.feed([old_post, back_post])
    old = the_day(es, indexer)
    indexer.read_until_us = network.now_us
    indexer.feed([gone, network.account(False, "suspended", OTHER)])
    settle(indexer)
    assert all(doc["hidden"] for doc in documents(es, indexer.index).values() if doc["kind"] == "commit")
    es.indices.close(index=old)
    indexer.feed([network.account(True, did=OTHER)])
    indexer.read_until_us = network.now_us + DAY
    settle(indexer)
    reopen(es, old)
    retry_now(indexer)
    settle(indexer)
    found = documents(es, indexer.index)
    assert found[id_of(old_post)]["redacted"]["reason"] == "account"
    assert not found[id_of(back_post)].get("hidden")


def test_a_day_that_was_open_for_many_deletions_is_brought_up_to_date_in_parts(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = [network.commit("create", str(number), at=network.now_us - DAY + number) for number in range(3)]
    indexer.feed(posts)
    old = the_day(es, indexer)
    es.indices.close(index=old)
    deletions = [network.commit("delete", str(number)) for number in range(3)]
    indexer.feed(deletions)
    settle(indexer)
    es.indices.refresh(index=f"{indexer.index}-*")
    for number, deletion in enumerate(deletions):  # each in a minute of its own
        [hit] = es.search(index=f"{indexer.index}-*", query={"ids": {"values": [id_of(deletion)]}})["hits"][
            "hits"
        ]
        arrived = (utc_now() - timedelta(minutes=10 * number)).isoformat(timespec="milliseconds")
        es.update(index=hit["_index"], id=hit["_id"], doc={"event": {"ingested": arrived}}, refresh=True)
    reopen(es, old)
    monkeypatch.setattr(unavailable_days, "_SECONDS", 0.0)
    reasons = []
    retry_now(indexer)
    while indexer.deletions.step():
        found = documents(es, indexer.index)
        reasons.append(sum("redacted" in found[id_of(one)] for one in posts))
        # Another worker, or a new run, goes on with what is left.
        indexer = deleting(indexer)
    assert reasons[:3] == [1, 2, 3]
    assert not records(es, indexer)


def test_a_day_that_is_closed_again_during_its_catch_up_gets_the_rest_later(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = network.commit("create", at=network.now_us - DAY)
    indexer.feed([post])
    old = the_day(es, indexer)
    es.indices.close(index=old)
    indexer.feed([network.commit("delete")])
    settle(indexer)
    reopen(es, old)
    real = records_of.redact

    def closing(*arguments: Any) -> Any:
        es.indices.close(index=old)
        return real(*arguments)

    monkeypatch.setattr("slurp.deletions.unavailable_days.redact", closing)
    retry_now(indexer)
    with pytest.raises(FAILURES):
        settle(indexer)
    monkeypatch.undo()
    retry_now(indexer)
    settle(indexer)
    assert [one["day"] for one in records(es, indexer)] == [old]
    reopen(es, old)
    retry_now(indexer)
    settle(indexer)
    assert documents(es, indexer.index)[id_of(post)]["redacted"]["reason"] == "deleted"


def test_what_is_known_about_a_day_that_was_deleted_is_forgotten(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer.feed([network.commit("create", at=network.now_us - DAY)])
    old = the_day(es, indexer)
    es.indices.close(index=old)
    indexer.feed([network.commit("delete")])
    settle(indexer)
    assert [one["day"] for one in records(es, indexer)] == [old]
    es.indices.delete(index=old)
    settle(indexer)
    assert not records(es, indexer)


def test_a_second_worker_accepts_a_day_that_the_first_has_found_closed(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    other = deleting(indexer)
    post = network.commit("create", at=network.now_us - DAY)
    indexer.feed([post])
    old = the_day(es, indexer)
    es.indices.close(index=old)
    deletion = network.commit("delete")
    for worker in (indexer, other):
        worker.feed([deletion])
        settle(worker)
    reopen(es, old)
    for worker in (indexer, other):
        retry_now(worker)
        settle(worker)
    assert documents(es, indexer.index)[id_of(post)]["redacted"]["reason"] == "deleted"
    assert not records(es, indexer)


def test_a_day_without_shards_delays_deletions_for_five_minutes_only(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = network.commit("create", "two")
    indexer.feed([post])
    today = the_day(es, indexer)
    old = indexer.days.name(int((network.now_us - DAY) // DAY))
    es.indices.create(
        index=old,
        settings={"index.routing.allocation.require._name": "none"},
        wait_for_active_shards="0",
    )
    # A worker starts nevertheless.
    indexer = deleting(indexer)
    frames = [network.commit("delete"), network.commit("delete", "two")]
    indexer.feed([*frames, network.account(False, "takendown", OTHER)])
    # A refresh waits a minute for the shard.
    monkeypatch.setattr(indexer.elastic, "_client", indexer.elastic.client.options(request_timeout=2))
    with pytest.raises(FAILURES):
        indexer.deletions.step()
    assert indexer.deletions.waiting
    monkeypatch.setattr("slurp.deletions.engine.POSTPONE_AFTER", 0)
    retry_now(indexer)
    settle(indexer)
    assert indexer.deletions.waiting == 0 and indexer.deletions.postponed == 0
    assert es.get(index=today, id=id_of(post))["_source"]["redacted"]["reason"] == "deleted"
    assert [one["day"] for one in records(es, indexer)] == [old]
    es.indices.put_settings(index=old, settings={"index.routing.allocation.require._name": None})
    es.cluster.health(index=old, wait_for_status="yellow")
    # As if the index had had them before.
    lost = network.commit("create", at=network.now_us - DAY)
    hidden = network.commit("create", did=OTHER, at=network.now_us - DAY)
    indexer.feed([lost, hidden])
    retry_now(indexer)
    settle(indexer)
    found = documents(es, indexer.index)
    assert found[id_of(lost)]["redacted"]["reason"] == "deleted"
    assert found[id_of(hidden)]["hidden"] is True
    assert not records(es, indexer)


@pytest.mark.parametrize("what", ["record", "account"])
def test_a_day_that_rejected_deletions_and_was_closed_later_gets_them(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    post = network.commit("create", at=network.now_us - DAY)
    indexer.feed([post])
    old = the_day(es, indexer)
    es.indices.put_settings(index=old, settings={"index.blocks.write": True})
    removal = network.commit("delete") if what == "record" else network.account(False, "suspended")
    indexer.feed([removal])
    # It is postponed, and tried again hours later, when the index is closed.
    monkeypatch.setattr("slurp.deletions.engine.POSTPONE_AFTER", 0)
    with pytest.raises(FAILURES):
        settle(indexer)
    assert bool(indexer.deletions.postponed) == (what == "record")
    es.indices.refresh(index=f"{indexer.index}-*")
    query = {"ids": {"values": [id_of(removal)]}}
    [hit] = es.search(index=f"{indexer.index}-*", query=query)["hits"]["hits"]
    arrived = (utc_now() - timedelta(hours=9)).isoformat(timespec="milliseconds")
    es.update(index=hit["_index"], id=hit["_id"], doc={"event": {"ingested": arrived}})
    es.indices.close(index=old)
    retry_now(indexer)
    indexer.deletions._accounts._avoided.clear()
    settle(indexer)
    assert not indexer.deletions.postponed
    assert [one["day"] for one in records(es, indexer)] == [old]
    es.indices.put_settings(index=old, settings={"index.blocks.write": None})
    reopen(es, old)
    retry_now(indexer)
    settle(indexer)
    found = documents(es, indexer.index)[id_of(post)]
    assert found["redacted"]["reason"] == "deleted" if what == "record" else found["hidden"] is True


def test_the_accounts_of_a_day_are_compared_in_pages_and_others_are_not_applied_again(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    dids = [f"did:plc:{letter * 24}" for letter in "abcdefgh"]
    before = network.now_us - DAY
    with_documents, without = dids[::2], dids[1::2]
    posts = {did: network.commit("create", did=did, at=before) for did in with_documents}
    indexer.feed([*posts.values(), *(network.commit("create", did=did) for did in without)])
    # Hidden before the day is closed, and one with its event in that day.
    first = [network.account(False, "suspended", did) for did in dids[:4]]
    first.append(network.account(False, "suspended", dids[5], at=before))
    indexer.feed(first)
    settle(indexer)
    old = indexer.days.name(int(before // DAY))
    es.indices.close(index=old)
    # Two return, others become inactive.
    indexer.feed([network.account(True, did=did) for did in dids[:2]])
    indexer.feed([network.account(False, "takendown", did) for did in dids[4:]])
    settle(indexer)
    reopen(es, old)
    for module in ("accounts", "account_states"):
        monkeypatch.setattr(f"slurp.deletions.{module}.CHUNK", 2)
    monkeypatch.setattr(unavailable_days, "_SECONDS", 0.0)
    applied: list[str] = []
    accounts = indexer.deletions._accounts
    real = accounts._put

    def put(states: Sequence[AccountState]) -> bool:
        applied.extend(state.did for state in states)
        return real(states)

    monkeypatch.setattr(accounts, "_put", put)
    retry_now(indexer)
    settle(indexer)
    found = documents(es, indexer.index)
    hidden = {did for did, post in posts.items() if found[id_of(post)].get("hidden")}
    assert hidden == set(with_documents) - {dids[0]}
    # The third is hidden there already; the others have nothing in that day.
    assert set(applied) == {dids[0], dids[4], dids[5], dids[6]}
    assert not records(es, indexer)


def test_a_day_gets_deletions_that_are_stored_in_another_day_that_was_closed(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    post = network.commit("create", at=network.now_us - 2 * DAY)
    indexer.feed([post])
    old = the_day(es, indexer)
    es.indices.close(index=old)
    # The deletion is stored in the next day, which is closed as well.
    deletion = network.commit("delete", at=network.now_us - DAY)
    indexer.feed([deletion])
    settle(indexer)
    later = indexer.days.name(int((network.now_us - DAY) // DAY))
    es.indices.close(index=later)
    indexer.feed([network.commit("create", "other")])
    settle(indexer)
    reopen(es, old)
    retry_now(indexer)
    settle(indexer)
    assert "redacted" not in documents(es, indexer.index)[id_of(post)]
    assert {str(one["day"]): one["waits_for"] for one in records(es, indexer)} == {old: [later], later: []}
    # It is closed once more meanwhile.
    es.indices.close(index=old)
    retry_now(indexer)
    settle(indexer)
    reopen(es, old)
    # Another run goes on with what is left.
    again = deleting(indexer)
    reopen(es, later)
    retry_now(again)
    settle(again)
    assert documents(es, indexer.index)[id_of(post)]["redacted"]["reason"] == "deleted"
    assert not records(es, indexer)


def test_a_document_with_several_accounts_does_not_stop_the_others(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    post = network.commit("create", at=network.now_us - DAY)
    indexer.feed([post])
    old = the_day(es, indexer)
    # As an ingest pipeline of the user may have changed it.
    es.index(
        index=old, document={"did": ["did:plc:x", OTHER], "kind": "account", "hidden": True}, refresh=True
    )
    es.indices.close(index=old)
    indexer.feed([network.account(False, "suspended"), network.account(False, "suspended", OTHER)])
    settle(indexer)
    reopen(es, old)
    retry_now(indexer)
    settle(indexer)
    assert documents(es, indexer.index)[id_of(post)]["hidden"] is True
    assert not records(es, indexer)
