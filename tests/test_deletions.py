"""Deletions in the daily indices of a real node: tombstones, hidden accounts, and what delays them."""

from __future__ import annotations

import threading

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.deletions.__main__ import main as command
from slurp.events.removals import TOLERANCE_US, Removal, removal_of
from tests.deleting_network import DID, MINUTE, OTHER, TOMBSTONE, Network, deleting, id_of, settle
from tests.harness import InProcess
from tests.worker import documents

pytestmark = pytest.mark.usefixtures("restored_root_logger")


@pytest.fixture
def network() -> Network:
    return Network()


def test_a_deletion_leaves_a_tombstone_of_each_earlier_version(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    first, edit = network.commit("create"), network.commit("update")
    other = network.commit("create", "two")
    indexer.feed([first, edit, other])
    before = documents(es, indexer.index)
    gone = network.commit("delete")
    again = network.commit("create")
    indexer.feed([gone, again])
    settle(indexer)
    found = documents(es, indexer.index)
    assert found.keys() == {id_of(one) for one in (first, edit, other, gone, again)}
    for frame in (first, edit):
        stone = found[id_of(frame)]
        assert stone.keys() == TOMBSTONE
        assert stone["commit"].keys() == {"collection", "operation", "rkey", "rev"}
        assert stone["redacted"]["reason"] == "deleted"
        assert {name: stone[name] for name in ("@timestamp", "did", "uri", "kind")} == {
            name: before[id_of(frame)][name] for name in ("@timestamp", "did", "uri", "kind")
        }
    assert found[id_of(other)] == before[id_of(other)]
    assert "redacted" not in found[id_of(gone)]
    assert found[id_of(again)]["text"].startswith("create one")
    assert indexer.deletions.redacted == {"deleted": 2, "updated": 0, "account": 0}
    indexer.feed([first, edit, other, gone, again])
    settle(indexer)
    assert documents(es, indexer.index) == found


def test_an_update_redacts_the_version_before(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    frames = [network.commit("create"), network.commit("update"), network.commit("update")]
    indexer.feed(frames)
    settle(indexer)
    found = documents(es, indexer.index)
    assert [found[id_of(one)].get("redacted", {}).get("reason") for one in frames] == [
        "updated",
        "updated",
        None,
    ]


def test_a_quarantined_version_loses_its_original_text(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    frame = network.commit("create")
    indexer.feed([frame])
    es.indices.refresh(index=f"{indexer.index}-*")
    [hit] = es.search(index=f"{indexer.index}-*", query={"match_all": {}})["hits"]["hits"]
    source = hit["_source"] | {"quarantine": {"error": "x", "raw": frame.decode()}}
    es.index(index=hit["_index"], id=hit["_id"], document=source)
    indexer.feed([network.commit("delete")])
    settle(indexer)
    assert documents(es, indexer.index)[id_of(frame)].keys() == TOMBSTONE


@pytest.mark.parametrize("status", ["deactivated", "takendown", "suspended", None])
def test_documents_of_an_inactive_account_are_hidden_until_it_is_active(
    indexer: InProcess, es: Elasticsearch, network: Network, status: str | None
) -> None:
    posts = [network.commit("create", str(number)) for number in range(3)]
    other = network.commit("create", did=OTHER)
    handle = network.identity("alice.example")
    change = network.account(False, status)
    indexer.feed([*posts, other, handle, change])
    settle(indexer)
    before = documents(es, indexer.index)
    hidden = {doc_id for doc_id, doc in before.items() if doc.get("hidden")}
    assert hidden == {id_of(one) for one in (*posts, handle)}
    # Within the tolerance of clocks, and after it.
    late = network.commit("create", "late")
    much_later = network.commit("create", "later", at=network.now_us + TOLERANCE_US + MINUTE)
    indexer.feed([late, much_later])
    settle(indexer)
    found = documents(es, indexer.index)
    assert found[id_of(late)]["hidden"] is True
    assert "hidden" not in found[id_of(much_later)]
    indexer.feed([network.account(True)])
    settle(indexer)
    assert not [doc for doc in documents(es, indexer.index).values() if doc.get("hidden")]
    # An earlier change that arrives late, or again, does not count any more.
    indexer.feed([change])
    settle(indexer)
    assert not [doc for doc in documents(es, indexer.index).values() if doc.get("hidden")]


def test_a_deleted_account_is_redacted_after_the_delay(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "0s")
    active = network.account(True)
    posts = [network.commit("create", str(number)) for number in range(3)]
    handle = network.identity("alice.example")
    removed = network.commit("delete", "0")
    gone = network.account(False, "deleted")
    later = network.commit("create", "later", at=network.now_us + TOLERANCE_US + MINUTE)
    indexer.feed([active, *posts, handle, removed, gone, later])
    settle(indexer)
    found = documents(es, indexer.index)
    assert len(found) == 8
    for frame in (active, *posts, handle, removed):
        stone = found[id_of(frame)]
        assert stone["redacted"]["reason"] == "account"
        assert DID not in str(stone) and "alice" not in str(stone)
        assert stone.keys() <= TOMBSTONE - {"did", "uri"}
        assert stone.get("commit", {}).keys() <= {"collection", "operation", "rev"}
    kept = found[id_of(gone)]
    assert kept["did"] == DID and kept["account"]["status"] == "deleted" and kept["account"]["time"]
    assert "hidden" not in found[id_of(later)] and "redacted" not in found[id_of(later)]
    # The tombstone of a deletion names no record, which the verification must accept.
    assert command(["--verify", "--es", indexer.config.es[0], "--index", indexer.index]) == 0
    # What arrives late is redacted at once; a replay changes nothing.
    late = network.commit("create", "late", at=network.now_us)
    indexer.feed([late, *posts, handle, gone])
    settle(indexer)
    again = documents(es, indexer.index)
    assert again.pop(id_of(late))["redacted"]["reason"] == "account"
    assert again == found


def test_the_deletion_by_an_old_host_after_a_move_changes_nothing(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "0s")
    post = network.commit("create")
    gone = network.account(False, "deleted")
    moved = network.account(True)
    indexer.feed([post, moved, gone])
    settle(indexer)
    document = documents(es, indexer.index)[id_of(post)]
    assert document["text"] and not document.get("hidden")


def test_too_many_deleted_accounts_wait_for_the_operator(
    indexer: InProcess, es: Elasticsearch, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "0s", "--deletions-brake", "3")
    dids = [f"did:plc:{number:024}" for number in range(5)]
    posts = [network.commit("create", did=did) for did in dids]
    indexer.feed([*posts, *(network.account(False, "deleted", did) for did in dids)])
    settle(indexer)
    found = documents(es, indexer.index)
    assert all(found[id_of(one)]["hidden"] is True and found[id_of(one)]["text"] for one in posts)
    assert "5 deleted accounts wait for your confirmation" in caplog.text
    assert indexer.deletions.is_braked
    assert command(["--confirm", "--yes", "--es", indexer.config.es[0], "--index", indexer.index]) == 0
    settle(indexer)
    found = documents(es, indexer.index)
    assert all(found[id_of(one)]["redacted"]["reason"] == "account" for one in posts)
    assert not indexer.deletions.is_braked


def test_an_account_of_many_records_is_hidden_in_slices(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-rate", "100000")
    posts = [network.commit("create", str(number)) for number in range(5000)]
    indexer.feed([*posts, network.account(False, "deleted")])
    assert indexer.deletions.step(), "there is more to do"
    assert indexer.deletions.pending_since is not None
    assert not indexer.deletions.waiting, "the checkpoint goes on"
    settle(indexer)
    assert indexer.deletions.pending_since is None
    assert sum(doc.get("hidden") is True for doc in documents(es, indexer.index).values()) == 5000


def test_a_write_blocked_day_delays_the_checkpoint_for_five_minutes(
    indexer: InProcess, es: Elasticsearch, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = network.commit("create")
    indexer.feed([post])
    [day] = es.indices.get(index=f"{indexer.index}-*")
    es.indices.put_settings(index=day, settings={"index.blocks.write": True})
    removals = indexer.deletions
    # The deletion itself arrives on another day.
    indexer.feed([network.commit("delete", at=network.now_us + 30 * 3600 * 1_000_000)])
    with pytest.raises(Exception, match="cluster_block"):
        removals.step()
    assert removals.waiting == 1
    monkeypatch.setattr("slurp.deletions.engine.POSTPONE_AFTER", 0)
    monkeypatch.setattr("slurp.deletions.engine._TRY_AGAIN_AFTER", 0)
    monkeypatch.setattr("slurp.deletions.engine.RETRY_EVERY", 0)
    removals._retry_at = 0
    for one in removals._waiting:
        one.try_at = 0
    with pytest.raises(Exception, match="cluster_block"):
        removals.step()
    assert removals.waiting == 0
    removals.step()
    assert removals.postponed == 1 and removals.pending_since is not None
    assert documents(es, indexer.index)[id_of(post)]["text"]
    es.indices.put_settings(index=day, settings={"index.blocks.write": None})
    settle(indexer)
    assert removals.postponed == 0 and removals.pending_since is None
    assert documents(es, indexer.index)[id_of(post)]["redacted"]["reason"] == "deleted"


def test_all_postponed_deletions_are_retried(indexer: InProcess, es: Elasticsearch, network: Network) -> None:
    posts = [network.commit("create", str(number)) for number in range(60)]
    indexer.feed(posts)
    removals = indexer.deletions
    for number in range(60):
        removal = removal_of(orjson.loads(network.commit("delete", str(number))), network.now_us)
        assert isinstance(removal, Removal)
        removals._store.add([removal], "the index was not writable")
    removals._retry_at = 0
    settle(indexer)
    assert removals.postponed == 0
    assert all("redacted" in doc for doc in documents(es, indexer.index).values())


def test_a_deleted_account_is_no_example_of_unknown_fields(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "0s")
    uris = [f"at://{did}/app.bsky.feed.post/one" for did in (DID, OTHER)]
    for number, uri in enumerate(uris):
        document = {"index": indexer.index, "type": "field", "example_uri": uri}
        es.index(index="skeetslurper-drift", id=f"{indexer.index}{number}", document=document)
    indexer.feed([network.commit("create"), network.account(False, "deleted")])
    settle(indexer)
    kept = [
        es.get(index="skeetslurper-drift", id=f"{indexer.index}{number}")["_source"]["example_uri"]
        for number in range(2)
    ]
    assert kept == [None, uris[1]]


def test_states_of_accounts_past_retention_are_deleted(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    long_ago = network.now_us - 40 * 86_400_000_000
    indexer.feed([network.commit("create", did=OTHER), network.account(False, "takendown", OTHER)])
    indexer.feed([network.account(False, "takendown", at=long_ago)])
    settle(indexer)
    states = {"bool": {"filter": [{"term": {"type": "account"}}, {"term": {"index": indexer.index}}]}}
    es.indices.refresh(index="skeetslurper-state")
    assert es.count(index="skeetslurper-state", query=states)["count"] == 2
    for day in es.indices.get(index=f"{indexer.index}-*"):
        if es.count(index=day, query={"term": {"did": DID}})["count"]:
            es.indices.delete(index=day)
    indexer.deletions._retry_at = 0
    settle(indexer)
    es.indices.refresh(index="skeetslurper-state")
    hits = es.search(index="skeetslurper-state", query=states)["hits"]["hits"]
    assert [hit["_source"]["did"] for hit in hits] == [OTHER]


def test_two_workers_on_one_index_apply_the_same_deletions(
    indexer: InProcess, es: Elasticsearch, network: Network
) -> None:
    other = deleting(indexer)
    posts = [network.commit("create", str(number)) for number in range(200)]
    frames = [*posts, *(network.commit("delete", str(number)) for number in range(200))]
    frames += [network.commit("create", did=OTHER), network.account(False, "suspended", OTHER)]
    indexer.feed(frames)
    other.feed(frames)
    threads = [threading.Thread(target=one.deletions.step) for one in (indexer, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in (indexer, other):
        for waiting in one.deletions._waiting:
            waiting.try_at = 0
        settle(one)
    found = documents(es, indexer.index)
    assert all(found[id_of(one)]["redacted"]["reason"] == "deleted" for one in posts)
    assert [doc["did"] for doc in found.values() if doc.get("hidden")] == [OTHER]
