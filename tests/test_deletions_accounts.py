"""Changes of accounts on a real node: what is due by the stream, what fails, and what is invalid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.deletions.__main__ import main as command
from slurp.deletions.account_states import AccountState, AccountStates
from slurp.deletions.records import Redaction
from slurp.deletions.versions import RatePause
from slurp.elastic.client import FAILURES
from slurp.events.removals import TOLERANCE_US
from tests.deleting_network import MINUTE, OTHER, Network, deleting, id_of, settle
from tests.harness import InProcess
from tests.worker import documents

pytestmark = pytest.mark.usefixtures("restored_root_logger")

HOUR = 60 * MINUTE


@pytest.fixture
def network() -> Network:
    return Network()


def state(es: Elasticsearch, frame: bytes, index: str) -> str:
    """Return whether the document of a frame has its content, is hidden, or why it was redacted."""
    document = documents(es, index)[id_of(frame)]
    if "redacted" in document:
        return str(document["redacted"]["reason"])
    assert document["text"]
    return "hidden" if document.get("hidden") else "content"


def received(frame: bytes, time_us: int) -> bytes:
    """Return the frame as a server sends it that received it at another time."""
    return orjson.dumps(orjson.loads(frame) | {"time_us": time_us})


def test_after_a_long_outage_the_stream_decides_whether_an_account_is_redacted(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    """The worker was stopped for two days: that the account is active again is still to be read."""
    indexer = deleting(indexer, "--deletions-delay", "24h")
    network.now_us -= 48 * HOUR
    post, gone = network.commit("create"), network.account(False, "deleted")
    other, other_gone = network.commit("create", did=OTHER), network.account(False, "deleted", OTHER)
    indexer.feed([post, gone, other, other_gone])
    start = network.now_us
    indexer.read_until_us = start + 23 * HOUR
    settle(indexer)
    assert state(es, post, indexer.index) == state(es, other, indexer.index) == "hidden"
    back = network.account(True, at=start + 23 * HOUR)
    indexer.feed([back])
    indexer.read_until_us = start + 25 * HOUR
    settle(indexer)
    assert state(es, post, indexer.index) == "content"
    assert state(es, other, indexer.index) == "account"


def test_no_account_is_redacted_while_a_change_of_one_is_not_recorded(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h")
    post, gone = network.commit("create"), network.account(False, "deleted")
    indexer.feed([post, gone])
    indexer.read_until_us = network.now_us
    settle(indexer)
    real = AccountStates.put

    def conflicting(self: AccountStates, states: Sequence[AccountState]) -> set[str]:
        # Another worker has changed the account since it was read.
        return (
            {one.did for one in states} if any(one.times.active_us for one in states) else real(self, states)
        )

    monkeypatch.setattr(AccountStates, "put", conflicting)
    indexer.feed([network.account(True)])
    indexer.read_until_us = network.now_us + 2 * HOUR
    indexer.deletions.step()
    assert indexer.deletions.waiting
    assert state(es, post, indexer.index) == "hidden"
    monkeypatch.undo()
    for one in indexer.deletions._waiting:
        one.try_at = 0
    settle(indexer)
    assert state(es, post, indexer.index) == "content"


def test_commands_do_not_carry_out_deletions_that_are_due(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h")
    post, gone = network.commit("create"), network.account(False, "deleted")
    indexer.feed([post, gone])
    indexer.read_until_us = network.now_us
    settle(indexer)
    options = ["--deletions-delay", "1s", "--es", indexer.config.es[0], "--index", indexer.index]
    assert command(["--verify", "--yes", *options]) == 0
    assert state(es, post, indexer.index) == "hidden"


def test_another_event_about_a_deletion_does_not_delay_it(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h")
    post = network.commit("create")
    indexer.feed([post, network.account(False, "deleted")])
    due_us = network.now_us + HOUR
    indexer.read_until_us = due_us - 2 * MINUTE
    settle(indexer)
    indexer.feed([network.account(False, "deleted", at=due_us - 2 * MINUTE)])
    settle(indexer)
    assert state(es, post, indexer.index) == "hidden"
    indexer.read_until_us = due_us
    settle(indexer)
    assert state(es, post, indexer.index) == "account"


def test_a_deletion_after_a_return_has_a_delay_of_its_own(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h")
    post = network.commit("create")
    indexer.feed([post, network.account(False, "deleted")])
    first_us = network.now_us
    indexer.read_until_us = first_us
    settle(indexer)
    again = [
        network.account(True, at=first_us + MINUTE),
        network.account(False, "deleted", at=first_us + 9 * MINUTE),
    ]
    indexer.feed(again)
    indexer.read_until_us = first_us + HOUR + MINUTE
    settle(indexer)
    assert state(es, post, indexer.index) == "hidden"
    indexer.read_until_us = first_us + HOUR + 9 * MINUTE
    settle(indexer)
    assert state(es, post, indexer.index) == "account"


def test_the_delay_of_a_later_deletion_is_not_that_of_an_earlier_one(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    """Both deletions arrive before the return between them."""
    indexer = deleting(indexer, "--deletions-delay", "1h")
    post = network.commit("create")
    first_us = network.now_us + MINUTE
    second = network.account(False, "deleted", at=first_us + 50 * MINUTE)
    indexer.feed([post, network.account(False, "deleted", at=first_us)])
    indexer.read_until_us = first_us
    settle(indexer)
    indexer.feed([second])
    settle(indexer)
    indexer.feed([received(network.account(True, at=first_us + MINUTE), first_us + 51 * MINUTE)])
    indexer.read_until_us = first_us + 65 * MINUTE
    settle(indexer)
    assert state(es, post, indexer.index) == "hidden"
    indexer.read_until_us = first_us + 110 * MINUTE
    settle(indexer)
    assert state(es, post, indexer.index) == "account"


def test_a_return_outweighs_a_deletion_by_a_host_whose_clock_is_ahead(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    post = network.commit("create")
    ahead = received(network.account(False, "deleted", at=network.now_us + 20 * HOUR), network.now_us)
    indexer.feed([post, ahead, network.account(True, at=network.now_us + 10 * MINUTE)])
    settle(indexer)
    assert state(es, post, indexer.index) == "content"


def test_a_return_that_cannot_be_searched_keeps_the_account(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted and active again; the day of the return is closed, then the account is deactivated."""
    indexer = deleting(indexer, "--deletions-delay", "1h")
    day_us = 24 * HOUR
    start = network.now_us - 3 * day_us
    post = network.commit("create", at=start)
    indexer.feed([post, network.account(False, "deleted", at=start + MINUTE)])
    indexer.read_until_us = start
    settle(indexer)
    indexer.feed([network.account(True, at=start + day_us)])
    settle(indexer)
    returned = indexer.days.name(int((start + day_us) // day_us))
    es.indices.close(index=returned)
    indexer.read_until_us = network.now_us
    indexer.feed([network.account(False, "deactivated")])
    settle(indexer)
    es.indices.open(index=returned)
    es.cluster.health(index=returned, wait_for_status="yellow")
    assert state(es, post, indexer.index) == "hidden"
    # Another event of the account, before it is its turn in the catch-up of the day.
    indexer.deletions._retry_at = 0
    with monkeypatch.context() as patch:
        patch.setattr(indexer.deletions._days, "catch_up", lambda: (Redaction(), False))
        indexer.feed([network.account(False, "deactivated")])
        settle(indexer)
    assert state(es, post, indexer.index) == "hidden"
    indexer.deletions._retry_at = 0
    settle(indexer)
    indexer.feed([network.account(True)])
    settle(indexer)
    assert state(es, post, indexer.index) == "content"


def test_a_stored_history_of_deletions_is_no_burst(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    """As in an upgrade: one deletion every two hours, all found within a second."""
    indexer = deleting(indexer, "--deletions-delay", "1h", "--deletions-brake", "2")
    dids = [f"did:plc:{number:024}" for number in range(6)]
    network.now_us -= 20 * HOUR
    posts, last = [], network.now_us
    for did in dids:
        network.now_us += 2 * HOUR
        posts.append(network.commit("create", did=did))
        indexer.feed([posts[-1], network.account(False, "deleted", did)])
    options = ["--es", indexer.config.es[0], "--index", indexer.index, "--deletions-brake", "2"]
    assert command(["--verify", "--yes", *options, "--deletions-delay", "1h"]) == 0
    assert last < network.now_us
    settle(indexer)
    assert not indexer.deletions.is_braked
    assert {state(es, post, indexer.index) for post in posts} == {"account"}


def test_a_stored_burst_of_deletions_is_held(indexer: InProcess, es: Elasticsearch, network: Network) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h", "--deletions-brake", "3")
    network.now_us -= 20 * HOUR
    dids = [f"did:plc:{number:024}" for number in range(5)]
    posts = [network.commit("create", did=did) for did in dids]
    indexer.feed(posts)
    indexer.feed([network.account(False, "deleted", did) for did in dids])
    options = ["--es", indexer.config.es[0], "--index", indexer.index, "--deletions-brake", "3"]
    assert command(["--verify", "--yes", *options, "--deletions-delay", "1h"]) == 0
    settle(indexer)
    assert indexer.deletions.is_braked
    assert {state(es, post, indexer.index) for post in posts} == {"hidden"}


def test_an_index_that_rejects_writes_does_not_delay_other_accounts(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-rate", "100000")
    day_us = 24 * HOUR
    old = [
        network.commit(
            "create", str(number), did=f"did:plc:{number % 150:024}", at=network.now_us - day_us + number
        )
        for number in range(2500)
    ]
    indexer.feed(old)
    [blocked] = es.indices.get(index=f"{indexer.index}-*")
    es.indices.put_settings(index=blocked, settings={"index.blocks.write": True})
    new = [network.commit("create", did=f"did:plc:{number:024}") for number in range(150)]
    post = network.commit("create", did=OTHER)
    changes = [network.account(False, "takendown", f"did:plc:{number:024}") for number in range(150)]
    indexer.feed([*new, post, *changes, network.account(False, "takendown", OTHER)])
    for _ in range(20):
        try:
            if not indexer.deletions.step():
                break
        except FAILURES as error:
            assert "index_not_writable" in str(error) or "cluster_block" in str(error)
    found = documents(es, indexer.index)
    assert not indexer.deletions.waiting, "the checkpoint goes on"
    assert found[id_of(post)].get("hidden"), "an account without documents in the index"
    assert all(found[id_of(one)].get("hidden") for one in new)
    assert not any(found[id_of(one)].get("hidden") for one in old)
    assert indexer.deletions.pending_since is not None
    es.indices.put_settings(index=blocked, settings={"index.blocks.write": None})
    indexer.deletions._accounts._avoided.clear()
    settle(indexer)
    assert all(doc.get("hidden") for doc in documents(es, indexer.index).values() if doc["kind"] == "commit")
    assert indexer.deletions.pending_since is None


@pytest.mark.parametrize(
    "fields",
    [
        {"jetstream": {"time_us": "yesterday"}},
        {"jetstream": None},
        {"account": "gone", "jetstream": None},
        {"@timestamp": None, "event": None, "jetstream": 7},
    ],
)
def test_account_events_that_a_pipeline_has_changed_stop_nothing(
    indexer: InProcess, es: Elasticsearch, network: Network, fields: dict[str, Any]
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "0s")
    earlier, post = network.account(True), network.commit("create")
    indexer.feed([earlier, post])
    es.indices.refresh(index=f"{indexer.index}-*")
    hits = es.search(index=f"{indexer.index}-*", query={"match_all": {}})["hits"]["hits"]
    for hit in hits:
        changed = {name: value for name, value in (hit["_source"] | fields).items() if value is not None}
        # As a document with these values cannot be indexed, only its source is changed.
        es.options(ignore_status=400).index(index=hit["_index"], id=hit["_id"], document=changed)
    indexer.feed([network.account(False, "deleted")])
    settle(indexer)
    assert indexer.deletions.pending_since is None
    assert documents(es, indexer.index)[id_of(post)].get("redacted", {}).get("reason") == "account"


def test_a_time_in_the_future_does_not_outweigh_later_events(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    """Of a server with a wrong clock, or a malicious one."""
    year = 365 * 24 * HOUR
    post = network.commit("create")
    wrong = received(network.account(False, "takendown", at=network.now_us + year), network.now_us + year)
    indexer.feed([post, wrong])
    settle(indexer)
    assert state(es, post, indexer.index) == "hidden"
    back = network.account(True, at=network.now_us + 26 * HOUR)
    indexer.feed([back])
    settle(indexer)
    assert state(es, post, indexer.index) == "content"


def test_a_rev_ahead_of_its_time_does_not_keep_the_content_of_a_deleted_account(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "0s")
    ahead = received(network.commit("create", at=network.now_us + 20 * HOUR), network.now_us)
    gone = network.account(False, "deleted")
    late = received(network.commit("create", "two", at=network.now_us + 20 * HOUR), network.now_us)
    indexer.feed([ahead, gone])
    settle(indexer)
    indexer.feed([late])
    settle(indexer)
    assert state(es, ahead, indexer.index) == state(es, late, indexer.index) == "account"
    assert TOLERANCE_US < 20 * HOUR


def test_names_that_are_too_long_to_be_indexed_are_ignored(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    did = "did:web:" + "a" * 3000
    frames = [network.commit("delete", "k" * 5000), network.account(False, "deleted", did)]
    indexer.feed(frames)
    assert not indexer.deletions.waiting
    settle(indexer)
    assert len(documents(es, indexer.index)) == 2


def test_an_account_of_a_hidden_index_is_hidden(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    post, removed = network.commit("create"), network.commit("create", "two")
    indexer.feed([post, removed])
    es.indices.put_settings(index=f"{indexer.index}-*", settings={"index.hidden": True})
    indexer.feed([network.account(False, "takendown"), network.commit("delete", "two")])
    settle(indexer)
    es.indices.put_settings(
        index=f"{indexer.index}-*", settings={"index.hidden": None}, expand_wildcards="all"
    )
    assert state(es, post, indexer.index) == "hidden"
    assert state(es, removed, indexer.index) == "deleted"


@pytest.fixture
def without_expensive_queries(es: Elasticsearch) -> Iterator[None]:
    es.cluster.put_settings(persistent={"search.allow_expensive_queries": False})
    yield
    es.cluster.put_settings(persistent={"search.allow_expensive_queries": None})


@pytest.mark.cluster_wide
@pytest.mark.usefixtures("without_expensive_queries")
def test_deletions_need_no_expensive_queries(indexer: InProcess, es: Elasticsearch, network: Network) -> None:
    indexer = deleting(indexer, "--deletions-delay", "0s")
    post, removed = network.commit("create"), network.commit("create", "two", did=OTHER)
    indexer.feed(
        [post, removed, network.account(False, "deleted"), network.commit("delete", "two", did=OTHER)]
    )
    settle(indexer)
    assert state(es, post, indexer.index) == "account"
    assert state(es, removed, indexer.index) == "deleted"


def test_at_a_low_rate_pages_are_small(
    indexer: InProcess, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of 500 documents would take minutes, and its point in time would expire."""
    pages: list[int] = []
    monkeypatch.setattr(RatePause, "__call__", lambda self, count: pages.append(count))
    indexer = deleting(indexer, "--deletions-rate", "2")
    posts = [network.commit("create", str(number)) for number in range(50)]
    indexer.feed([*posts, network.account(False, "takendown")])
    settle(indexer)
    assert pages == [20, 20, 10]
