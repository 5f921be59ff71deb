"""Deletions at the end of a run, and what of them waits behind a batch that is not acknowledged."""

from __future__ import annotations

import threading
import time

from elasticsearch import Elasticsearch

from slurp.elastic.outage_log import OutageLog
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.ack_tracker import BatchAck
from slurp.tasks import apply_deletions
from slurp.watchdog import Watchdog
from tests.deleting_network import Network, id_of
from tests.harness import InProcess, until
from tests.worker import documents


class Ending:
    """The thread `deletions` of a worker that is shutting down."""

    def __init__(self, indexer: InProcess, grace: float = 60) -> None:
        watchdog = Watchdog(None)
        status = WorkerStatus(indexer.channel, watchdog, OutageLog())
        status.stop.set()
        self.drained = threading.Event()
        settle_by = time.monotonic() + grace
        self.thread = threading.Thread(
            target=apply_deletions,
            args=(
                indexer.deletions,
                status,
                indexer.elastic,
                self.drained,
                watchdog.heartbeat("deletions", 300),
                lambda: settle_by - time.monotonic(),
            ),
            daemon=True,
        )
        self.thread.start()


def test_deletions_are_applied_while_indexers_may_still_wait_for_them(
    indexer: InProcess, es: Elasticsearch
) -> None:
    network = Network()
    first, second = network.commit("create"), network.commit("create", "two")
    indexer.feed([first, second, network.commit("delete")])
    ending = Ending(indexer)
    until(lambda: not indexer.counters.unapplied)
    assert ending.thread.is_alive(), "the last batches may have more of them"
    indexer.feed([network.commit("delete", "two")])
    ending.drained.set()
    ending.thread.join(30)
    assert not ending.thread.is_alive()
    found = documents(es, indexer.index)
    assert all("redacted" in found[id_of(one)] for one in (first, second))


def test_deletions_behind_a_batch_that_is_not_acknowledged_count_and_do_not_use_the_grace(
    indexer: InProcess, es: Elasticsearch
) -> None:
    network = Network()
    held, deletion = network.commit("create"), network.commit("delete")
    for frame in (held, deletion):
        indexer.put([frame])
    first, second = (indexer.channel.queue.get(1) for _ in range(2))
    assert first is not None and second is not None
    outcome, ack = indexer.one_indexer()._index(second)
    indexer.counters.acknowledged(second, outcome, ack)
    assert isinstance(ack, BatchAck)
    assert indexer.counters.unapplied == 1, "so that indexing waits if there are too many"
    assert indexer.counters.untaken == 0
    began = time.monotonic()
    ending = Ending(indexer, grace=300)
    ending.drained.set()
    ending.thread.join(30)
    assert not ending.thread.is_alive() and time.monotonic() - began < 30
    assert indexer.counters.unapplied == 1
    assert not indexer.counters.checkpoints()
