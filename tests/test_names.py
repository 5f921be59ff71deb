"""Names of accounts in skeetslurper-actors: looked up once, current, and gone with their accounts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest
from elasticsearch import Elasticsearch

from slurp.actors.appview import AppView
from slurp.actors.changes import ActorChanges
from slurp.actors.names import Actors, Name
from slurp.deletions.versions import RatePause, Versions
from slurp.elastic.setup import create_own_index
from slurp.simulator.accounts import Account
from slurp.simulator.jetstream import Simulator
from tests.deleting_network import Network, deleting, settle
from tests.harness import InProcess

ACTORS = "skeetslurper-actors"
DAY = 86_400


class Trial:
    """The names of a simulated AppView."""

    def __init__(self, indexer: InProcess) -> None:
        self.now = 1_790_000_000.0
        self.server = Simulator(port=0, seed=int(uuid4()) % 10**6)  # other accounts than those of other tests
        self.server.start()
        self.appview = AppView(self.server.url.replace("ws://", "http://"), lambda: self.now)
        self.actors = Actors(indexer.elastic, indexer.index, self.appview, lambda: self.now)

    @property
    def accounts(self) -> list[Account]:
        return self.server._generator.population.accounts


@pytest.fixture
def trial(indexer: InProcess) -> Iterator[Trial]:
    trial = Trial(indexer)
    yield trial
    trial.server.stop()


def test_names_are_looked_up_once_a_week(trial: Trial, es: Elasticsearch) -> None:
    first, unknown = trial.accounts[0], "did:plc:unknown" + uuid4().hex[:9]
    dids = [first.did, unknown]
    wanted = {first.did: Name(first.handle, first.name), unknown: Name()}
    assert trial.actors.names(dids) == wanted
    assert trial.actors.names(dids) == wanted
    assert trial.appview.calls == 1
    document = es.get(index=ACTORS, id=first.did)["_source"]
    assert document["did"] == first.did and document["followers"] == first.clock and document["description"]
    trial.now += 7 * 3600
    trial.actors.names(dids)
    assert trial.server.appview.calls[-1][1] == [unknown]
    trial.now += 8 * DAY
    first.name = "Renamed"
    assert trial.actors.names(dids)[first.did].display_name == "Renamed"


def test_a_change_of_a_known_account_triggers_a_lookup(trial: Trial) -> None:
    known, other = trial.accounts[:2]
    trial.actors.names([known.did])
    known.handle = "new.example.com"
    trial.actors.refresh([known.did, other.did])
    assert [names for _, names in trial.server.appview.calls][1:] == [[known.did]]
    assert trial.actors.names([known.did])[known.did].handle == "new.example.com"


def test_while_the_appview_fails_stored_names_are_used(trial: Trial) -> None:
    first, second = trial.accounts[:2]
    trial.actors.names([first.did])
    trial.server.appview.failures.append((500, {}, b""))
    found = trial.actors.names([first.did, second.did])
    assert found == {first.did: Name(first.handle, first.name)}
    trial.now += 10
    assert second.did in trial.actors.names([second.did])


def test_without_an_appview_nothing_is_looked_up(trial: Trial, indexer: InProcess) -> None:
    known, other = trial.accounts[:2]
    trial.actors.names([known.did])
    without = Actors(indexer.elastic, indexer.index, None)
    assert without.names([known.did, other.did]) == {known.did: Name(known.handle, known.name)}
    assert without.posts(["at://did:plc:x/app.bsky.feed.post/1"]) == {}


def test_posts_that_are_unknown_are_asked_for_once(trial: Trial) -> None:
    uris = [f"at://did:plc:x/app.bsky.feed.post/{number}" for number in range(2)]
    trial.server.appview.posts[uris[0]] = "Hello"
    for _ in range(2):
        assert [post.text for post in trial.actors.posts(uris).values()] == ["Hello"]
    assert [len(names) for _, names in trial.server.appview.calls] == [2, 1]


def test_names_of_an_account_are_hidden_and_removed_with_it(
    trial: Trial, indexer: InProcess, es: Elasticsearch
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h")
    network, did = Network(), trial.accounts[0].did
    trial.actors.names([did])
    indexer.read_until_us = network.now_us
    indexer.feed([network.commit("create", did=did), network.account(False, "deactivated", did)])
    settle(indexer)
    assert es.get(index=ACTORS, id=did)["_source"]["hidden"] is True
    indexer.feed([network.account(True, did=did)])
    settle(indexer)
    assert not es.get(index=ACTORS, id=did)["_source"].get("hidden")
    indexer.feed([network.account(False, "deleted", did)])
    indexer.read_until_us = network.now_us + 7_200_000_000
    settle(indexer)
    assert not es.exists(index=ACTORS, id=did)
    # Another lookup of a deleted account, as by a worker that had not heard of it, leaves nothing.
    assert trial.actors.names([did]) == {}
    assert not es.exists(index=ACTORS, id=did)


def test_events_of_known_accounts_cause_a_lookup_and_say_their_status(
    trial: Trial, indexer: InProcess, es: Elasticsearch
) -> None:
    indexer = deleting(indexer)
    network, (first, second, unknown) = Network(), (one.did for one in trial.accounts[:3])
    trial.actors.names([first, second])
    versions = Versions(indexer.elastic, indexer.index, RatePause(1000, threading.Event()))
    clock = [0.0]
    changes = ActorChanges(versions, trial.actors, lambda: clock[0])
    indexer.feed(
        [
            network.account(False, "deactivated", first),
            network.account(True, did=first),
            network.account(False, "suspended", second),
            network.account(False, "suspended", unknown),
            network.identity("new.example", first),
        ]
    )
    settle(indexer)
    calls = trial.appview.calls
    assert changes.step() and not changes.step()
    assert trial.appview.calls > calls

    def statuses() -> dict[str, object]:
        found = es.mget(index=ACTORS, ids=[first, second, unknown])["docs"]
        return {one["_id"]: one["_source"].get("status") for one in found if one["found"]}

    assert statuses() == {first: "active", second: "suspended"}
    # A lookup does not know the status.
    trial.actors.refresh([first, second])
    assert statuses() == {first: "active", second: "suspended"}
    indexer.feed([network.account(False, did=first)])
    settle(indexer)
    clock[0] += 60
    assert changes.step()
    assert statuses() == {first: "inactive", second: "suspended"}
    # An event of an earlier time, as of the old host after a move, arrives late.
    indexer.feed([network.account(False, "deleted", first, at=network.now_us - 5_500_000)])
    indexer.feed([network.account(True, did=second)])
    settle(indexer)
    clock[0] += 60
    assert changes.step()
    assert statuses() == {first: "inactive", second: "active"}


def test_a_document_that_another_program_has_changed_is_looked_up_again(
    trial: Trial, es: Elasticsearch
) -> None:
    did = trial.accounts[0].did
    for changed in ({"did": did}, {"did": did, "resolved_at": 7, "is_known": 1, "display_name": ["a", "b"]}):
        es.index(index=ACTORS, id=did, document=changed, refresh=True)
        assert trial.actors.names([did])[did].handle


@pytest.mark.cluster_wide
def test_the_index_has_the_mode_lookup_unless_the_cluster_does_not_know_it(
    es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recreated() -> str | None:
        es.options(ignore_status=404).indices.delete(index=ACTORS)
        assert create_own_index(es, ACTORS)
        assert not create_own_index(es, ACTORS)
        settings = es.indices.get_settings(index=ACTORS)[ACTORS]["settings"]["index"]
        return settings.get("mode")  # type: ignore[no-any-return]

    create = es.indices.create

    def older(*, index: str, settings: dict[str, object], **more: object) -> object:
        renamed = {name: "unknown" if name == "index.mode" else value for name, value in settings.items()}
        return create(index=index, settings=renamed, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(es.indices, "create", older)
        assert recreated() is None
    assert recreated() == "lookup"
    assert es.indices.get_mapping(index=ACTORS)[ACTORS]["mappings"]["properties"]["did"]
