"""No checkpoint is saved beyond an unrecorded gap, at whatever moment the worker is killed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from elasticsearch import ConflictError, Elasticsearch

from slurp.backoff import Backoff
from slurp.elastic.client import Elastic
from slurp.embedded.node import EmbeddedNode
from slurp.events.position import Gap, Position
from slurp.jetstream.subscription import Subscription
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline import resume as resume_module
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch
from slurp.pipeline.checkpoint import Checkpoint
from slurp.pipeline.gaps import GapRecorder
from slurp.pipeline.progress import BatchOutcome, Counters
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from slurp.startup import Plan
from slurp.tasks import CheckpointTask
from tests.harness import Clock, reading, until
from tests.test_gap_worker import gap_documents
from tests.test_resume import QUIET, publish_around_outage, quiet_event
from tests.tiers import slow_except
from tests.worker import PROGRAM, Worker

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


class Cluster:
    """A client that keeps the written gaps; `during_write` is called in the middle of each write."""

    def __init__(self) -> None:
        self.gaps: dict[str, Any] = {}
        self.during_write: Callable[[], None] = lambda: None
        self.client = self
        self.indices = SimpleNamespace(get=lambda **_: {})

    def options(self, **_: object) -> Cluster:
        return self

    def index(self, id: str, document: Any, op_type: str, **_: object) -> None:
        self.during_write()
        if op_type == "create" and id in self.gaps:
            raise ConflictError("exists", cast(Any, None), None)
        self.gaps[id] = document


class Run:
    """The parts of a worker that save checkpoints and gaps, with readers that the test moves."""

    def __init__(self, readers: int = 1, wait_for_others: float = 3600.0) -> None:
        self.cluster = Cluster()
        self.counters = Counters(readers)
        self.gaps = GapRecorder(
            cast(Elastic, self.cluster),
            Subscription("ev"),
            (),
            self.counters,
            wait_for_others=wait_for_others,
        )
        self.saved: dict[str, Checkpoint] = {}
        self.received = dict.fromkeys(range(1, readers + 1), 0)
        plan = SimpleNamespace(gaps=self.gaps, checkpoints=SimpleNamespace(save=self._keep))
        status = SimpleNamespace(counters=self.counters, saved=None)
        self._task = CheckpointTask(cast(Plan, plan), cast(WorkerStatus, status), cast(Elastic, None))

    def receive(self, reader: int = 1) -> Callable[[], None]:
        """Receive a batch of ten events; return a function that acknowledges it."""
        self.received[reader] += 1
        number = self.received[reader]
        position = Position(f"h{reader}", number * 10, NOW + number * SECOND)
        batch = Batch(number, position.host, [b""], 0, position, reader=reader)
        self.counters.received(batch)
        ack = BatchAck(position, position.time_us)
        return lambda: self.counters.acknowledged(batch, BatchOutcome(indexed=1), ack)

    def save(self, clean: bool = False) -> None:
        self._task._save(clean)

    def cursor(self, reader: int = 1) -> int:
        """Return the saved cursor at which a worker would resume if it were killed now; 0 without one."""
        saved = self.saved.get(f"h{reader}")
        return 0 if saved is None else saved.position.cursor or 0

    def _keep(self, checkpoint: Checkpoint) -> bool:
        self.saved[checkpoint.position.host] = checkpoint
        return True


def gap(number: int = 0, reader: int = 1, **more: bool) -> Gap:
    """Return a gap of ten minutes that starts after batch `number`."""
    start = NOW + number * SECOND
    return Gap(f"h{reader}", start, start + 600 * SECOND, **more)


def test_a_save_does_not_pass_a_gap_that_is_found_while_it_runs() -> None:
    run = Run()
    run.receive()()
    run.gaps.report(1, gap(1))

    def during_write() -> None:
        run.cluster.during_write = lambda: None
        run.receive()()
        run.gaps.report(1, gap(2))
        run.receive()()

    run.cluster.during_write = during_write
    run.save()
    assert len(run.cluster.gaps) == 1
    assert run.cursor() <= 20, "the second gap is not recorded"
    for _ in range(2):
        run.save()
    assert len(run.cluster.gaps) == 2
    assert run.cursor() == 30


def test_the_checkpoint_stays_before_a_gap_that_another_reader_may_cover() -> None:
    run = Run(readers=2)
    run.receive(1)()
    run.receive(2)()
    run.gaps.report(1, gap(1))
    run.receive(1)()
    run.receive(2)()
    run.save(clean=True)
    assert (run.cursor(1), run.cursor(2)) == (10, 20)
    assert not run.saved["h1"].clean, "the checkpoint is before the position of the reader"
    assert run.saved["h2"].clean
    run.gaps.write(final=True)
    run.save(clean=True)
    assert (run.cursor(1), len(run.cluster.gaps)) == (20, 1)
    assert run.saved["h1"].clean


def test_the_checkpoint_stays_at_a_hold_until_it_is_released() -> None:
    run = Run()
    first, second = run.receive(), run.receive()
    hold = run.counters.hold(1)
    third = run.receive()
    for acknowledge in (third, first):
        acknowledge()
    run.save()
    assert run.cursor() == 10, "the checkpoint advances up to the hold"
    second()
    run.save()
    assert run.cursor() == 20
    run.counters.release(hold)
    run.save()
    assert run.cursor() == 30


def test_the_older_of_two_holds_on_one_gap_limits_the_checkpoint() -> None:
    """Two connections look for the same gap, and the second one gets its result first."""
    run = Run()
    older = run.counters.hold(1)
    run.receive()()
    newer = run.counters.hold(1)
    run.receive()()
    run.gaps.report(1, gap(), newer)
    run.gaps.report(1, gap(), older)
    positions = run.counters.checkpoints()
    assert not positions, "there is no position before the older hold"
    for _ in range(2):
        run.save()
    assert (run.cursor(), len(run.cluster.gaps)) == (20, 1)
    assert not run.counters.held


def test_a_possible_gap_is_recorded_as_possible_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    run = Run()
    run.gaps.report(1, gap(possible=True))
    run.save()
    (document,) = run.cluster.gaps.values()
    assert document["possible"] is True
    assert "possible gap: h1 sent no events from" in caplog.text
    assert run.counters.snapshot().gaps == 0
    run.gaps.report(1, gap())
    run.gaps.report(1, gap(possible=True))
    run.save()
    (document,) = run.cluster.gaps.values()
    assert document["possible"] is False
    assert run.counters.snapshot().gaps == 1
    assert not run.counters.held


def test_a_possible_gap_does_not_overwrite_a_certain_one_of_an_earlier_run() -> None:
    run, later = Run(), Run()
    run.gaps.report(1, gap())
    run.save()
    later.cluster.gaps = run.cluster.gaps
    later.gaps.report(1, gap(possible=True))
    later.save()
    (document,) = run.cluster.gaps.values()
    assert document["possible"] is False
    assert not later.counters.held


@pytest.mark.parametrize("seed", range(20))
def test_no_checkpoint_passes_an_unrecorded_gap_in_any_order_of_steps(seed: int) -> None:
    rng = random.Random(seed)
    run = Run(readers=2, wait_for_others=0.0)
    unacknowledged: list[Callable[[], None]] = []
    lookups: list[tuple[int, Gap, Any]] = []
    # By reader and `_id` of a gap, reported or still looked up: the batches received before it.
    before: dict[tuple[int, str], int] = {}
    for step in range(400):
        reader = rng.choice((1, 2))
        action = rng.choice(
            ("receive", "receive", "acknowledge", "acknowledge", "gap", "look up", "found", "save", "write")
        )
        if action == "receive":
            unacknowledged.append(run.receive(reader))
        elif action == "acknowledge" and unacknowledged:
            unacknowledged.pop(rng.randrange(len(unacknowledged)))()
        elif action in ("gap", "look up"):
            # Far in the future, so that the other reader covers no gap.
            found = gap(10**6 + step, reader)
            before[reader, run.gaps._document_id(found)] = run.received[reader]
            if action == "gap":
                run.gaps.report(reader, found)
            else:
                lookups.append((reader, found, run.counters.hold(reader)))
        elif action == "found" and lookups:
            run.gaps.report(*lookups.pop(rng.randrange(len(lookups))))
        elif action == "save":
            run.save()
        elif action == "write":
            run.gaps.write()
        for (owner, doc_id), batches in before.items():
            assert doc_id in run.cluster.gaps or run.cursor(owner) <= batches * 10
    for lookup in lookups:
        run.gaps.report(*lookup)
    for acknowledge in unacknowledged:
        acknowledge()
    run.gaps.write(final=True)
    run.save()
    assert len(run.cluster.gaps) == len(before)
    assert (run.cursor(1), run.cursor(2)) == (run.received[1] * 10, run.received[2] * 10)


# A host that does not send its oldest event


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def short_lookback(clock: Clock) -> Iterator[Simulator]:
    """A server that keeps the events of 15 minutes."""
    with Simulator(port=0, seed=1, clock=clock, server=ServerOptions(lookback=900)) as simulator:
        yield simulator


def test_a_host_that_never_sends_its_oldest_event_has_a_possible_gap(
    short_lookback: Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []
    monkeypatch.setattr(resume_module, "oldest_event", lambda server, **_: requested.append(server))
    monkeypatch.setattr(Backoff, "next", lambda self: 0.0)
    stopped_at = publish_around_outage(short_lookback, clock)
    with reading(short_lookback, known=stopped_at, options=("--dids", QUIET)) as run:
        until(lambda: len(run.gaps) == 1)
    assert run.gaps[0].possible
    assert run.gaps[0].from_us == stopped_at.time_us
    assert abs(run.gaps[0].to_us / 1e6 - time.time()) < 60
    assert requested == [short_lookback.url] * 3


def test_a_bug_in_the_lookup_does_not_hold_the_checkpoint_forever(
    short_lookback: Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(server: str, **_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(resume_module, "oldest_event", fails)
    monkeypatch.setattr(Backoff, "next", lambda self: 0.0)
    with reading(
        short_lookback, known=publish_around_outage(short_lookback, clock), options=("--dids", QUIET)
    ) as run:
        until(lambda: len(run.gaps) == 1)
    assert run.gaps[0].possible


# The real program


PATCHED = """
import sys
sys.path.insert(0, "{root}")
{patch}
from skeetslurper import main
main()
"""
HANGING_LOOKUP = (
    "import time; from slurp.pipeline import resume; resume.oldest_event = lambda *_, **__: time.sleep(3600)"
)
WAIT_AN_HOUR = "from slurp.pipeline.gaps import GapRecorder; GapRecorder.__init__.__defaults__ = (3600.0,)"

Start = Callable[..., Worker]


@pytest.fixture
def start(es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path) -> Start:
    def start_worker(*options: str, patch: str = "") -> Worker:
        program = tmp_path / "patched.py"
        program.write_text(PATCHED.format(root=PROGRAM.parent, patch=patch))
        return Worker(
            *("--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana"),
            *("--stats-interval", "1s", "--flush", "200ms", *options),
            home=tmp_path,
            program=program if patch else PROGRAM,
        )

    return start_worker


def cursor_of(es: Elasticsearch, index: str, simulator: Simulator) -> int:
    es.indices.refresh(index="skeetslurper-state")
    wanted = {"index": index, "type": "checkpoint", "host": simulator.url.removeprefix("ws://")}
    query = {"bool": {"filter": [{"term": {name: value}} for name, value in wanted.items()]}}
    (hit,) = es.search(index="skeetslurper-state", query=query)["hits"]["hits"]
    return int(hit["_source"]["cursor"])


def wait_for_checkpoints(worker: Worker, events: int) -> None:
    """Wait until `events` are indexed and two more checkpoints could have been saved."""
    worker.wait_for(" received ")
    worker.wait_until_counted(lambda counted: counted["indexed"] >= events)
    time.sleep(2.5)


@pytest.mark.parametrize("how", slow_except(["SIGTERM", "kill -9"]))
def test_a_gap_of_a_filtered_stream_is_not_lost_when_the_worker_ends(
    start: Start,
    short_lookback: Simulator,
    clock: Clock,
    es: Elasticsearch,
    fresh_index_prefix: str,
    how: str,
) -> None:
    subscription = ("--jetstream", short_lookback.url, "--dids", QUIET)
    clock.ago = 7200
    short_lookback.publish([quiet_event(clock)])
    with start(*subscription, "--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    clock.ago = 5400
    short_lookback.generate(1000, span=1)
    clock.ago = 0
    short_lookback.publish([quiet_event(clock)])
    with start(*subscription, patch=HANGING_LOOKUP) as worker:
        wait_for_checkpoints(worker, 1)
        if how == "SIGTERM":
            assert worker.stop() == 0
            assert "the checkpoint stays before a possible gap" in worker.log
        else:
            worker.kill()
    assert not gap_documents(es, fresh_index_prefix)
    assert cursor_of(es, fresh_index_prefix, short_lookback) == 1, "the checkpoint is before the gap"
    with start(*subscription, "--catch-up") as worker:
        assert worker.exit_code() == 0
    (document,) = gap_documents(es, fresh_index_prefix)
    assert document["possible"] is False
    assert cursor_of(es, fresh_index_prefix, short_lookback) == len(short_lookback.frames)


@pytest.mark.slow
def test_a_gap_that_another_host_may_cover_is_not_lost_by_kill_9(
    start: Start, short_lookback: Simulator, clock: Clock, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    both = ("--redundant", "--jetstream", short_lookback.url, "--jetstream", "ws://127.0.0.1:1")
    clock.ago = 7200
    short_lookback.generate(1000, span=1)
    with start(*both, "--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    clock.ago = 0
    short_lookback.generate(7000, span=7000)
    with start(*both, patch=WAIT_AN_HOUR) as worker:
        wait_for_checkpoints(worker, 800)
        worker.process.send_signal(signal.SIGKILL)
        worker.exit_code()
    assert not gap_documents(es, fresh_index_prefix)
    assert cursor_of(es, fresh_index_prefix, short_lookback) == 1000, "the checkpoint is before the gap"
    with start(*both, "--catch-up") as worker:
        assert worker.exit_code() == 0
    assert len(gap_documents(es, fresh_index_prefix)) == 1
    assert cursor_of(es, fresh_index_prefix, short_lookback) == 8000
