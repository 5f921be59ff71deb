"""No checkpoint is saved behind a gap that is not recorded, wherever the worker is killed."""

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
from slurp.pipeline import resume as cursors_module
from slurp.pipeline.batches import Batch
from slurp.pipeline.checkpoint import Checkpoint
from slurp.pipeline.gaps import GapRecorder
from slurp.pipeline.progress import BatchAck, Counters, Outcome
from slurp.simulator.connection import Manners
from slurp.simulator.jetstream import Simulator
from slurp.startup import Plan
from slurp.tasks import CheckpointTask
from tests.harness import Clock, reading, until
from tests.test_gap_worker import gap_documents
from tests.test_resume import QUIET, filtered, spoken
from tests.tiers import slow_except
from tests.worker import PROGRAM, Worker

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


class Cluster:
    """Keeps what is written; `meanwhile` is called in the middle of each write."""

    def __init__(self) -> None:
        self.gaps: dict[str, Any] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.client = self
        self.indices = SimpleNamespace(get=lambda **_: {})

    def options(self, **_: object) -> Cluster:
        return self

    def index(self, id: str, document: Any, op_type: str, **_: object) -> None:
        self.meanwhile()
        if op_type == "create" and id in self.gaps:
            raise ConflictError("exists", cast(Any, None), None)
        self.gaps[id] = document


class Run:
    """The parts of a worker that save, with one or more readers that are moved by hand."""

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
        self.handed = dict.fromkeys(range(1, readers + 1), 0)
        plan = SimpleNamespace(gaps=self.gaps, checkpoints=SimpleNamespace(save=self._keep))
        status = SimpleNamespace(counters=self.counters, saved=None)
        self._task = CheckpointTask(cast(Plan, plan), cast(WorkerStatus, status), cast(Elastic, None))

    def hand_over(self, reader: int = 1) -> Callable[[], None]:
        """A batch of the reader; what is returned acknowledges it."""
        self.handed[reader] += 1
        number = self.handed[reader]
        position = Position(f"h{reader}", number * 10, NOW + number * SECOND)
        batch = Batch(number, position.host, [b""], 0, position, reader=reader)
        self.counters.received(batch)
        answer = BatchAck(position, position.time_us)
        return lambda: self.counters.acknowledged(batch, Outcome(indexed=1), answer)

    def save(self, clean: bool = False) -> None:
        self._task._save(clean)

    def cursor(self, reader: int = 1) -> int:
        """What a worker that was killed now would go on from."""
        saved = self.saved.get(f"h{reader}")
        return 0 if saved is None else saved.position.cursor or 0

    def _keep(self, checkpoint: Checkpoint) -> bool:
        self.saved[checkpoint.position.host] = checkpoint
        return True


def gap(number: int = 0, reader: int = 1, **more: bool) -> Gap:
    start = NOW + number * SECOND
    return Gap(f"h{reader}", start, start + 600 * SECOND, **more)


def test_a_gap_that_is_found_during_a_save_is_not_passed_by_it() -> None:
    run = Run()
    run.hand_over()()
    run.gaps.report(1, gap(1))

    def meanwhile() -> None:
        run.cluster.meanwhile = lambda: None
        run.hand_over()()
        run.gaps.report(1, gap(2))
        run.hand_over()()

    run.cluster.meanwhile = meanwhile
    run.save()
    assert len(run.cluster.gaps) == 1
    assert run.cursor() <= 20, "the second gap is not recorded"
    for _ in range(2):
        run.save()
    assert len(run.cluster.gaps) == 2
    assert run.cursor() == 30


def test_the_checkpoint_stays_before_a_gap_that_waits_for_other_readers() -> None:
    run = Run(readers=2)
    run.hand_over(1)()
    run.hand_over(2)()
    run.gaps.report(1, gap(1))
    run.hand_over(1)()
    run.hand_over(2)()
    run.save(clean=True)
    assert (run.cursor(1), run.cursor(2)) == (10, 20)
    assert not run.saved["h1"].clean, "it is not where the reader ended"
    assert run.saved["h2"].clean
    run.gaps.write(final=True)
    run.save(clean=True)
    assert (run.cursor(1), len(run.cluster.gaps)) == (20, 1)
    assert run.saved["h1"].clean


def test_it_stays_before_a_question_until_that_is_answered() -> None:
    run = Run()
    first, second = run.hand_over(), run.hand_over()
    hold = run.counters.hold(1)
    third = run.hand_over()
    for answer in (third, first):
        answer()
    run.save()
    assert run.cursor() == 10, "what lies before the question moves on"
    second()
    run.save()
    assert run.cursor() == 20
    run.counters.release(hold)
    run.save()
    assert run.cursor() == 30


def test_the_older_of_two_holds_on_one_gap_counts() -> None:
    """Two connections ask about the same gap, and the second is answered first."""
    run = Run()
    older = run.counters.hold(1)
    run.hand_over()()
    newer = run.counters.hold(1)
    run.hand_over()()
    run.gaps.report(1, gap(), newer)
    run.gaps.report(1, gap(), older)
    positions = run.counters.checkpoints()
    assert not positions, "there is none before the older one"
    for _ in range(2):
        run.save()
    assert (run.cursor(), len(run.cluster.gaps)) == (20, 1)
    assert not run.counters.held


def test_a_possible_gap_is_recorded_as_such_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
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


def test_what_an_earlier_run_was_sure_of_is_not_made_a_possibility() -> None:
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
def test_in_any_order_nothing_is_saved_behind_what_is_not_recorded(seed: int) -> None:
    chance = random.Random(seed)
    run = Run(readers=2, wait_for_others=0.0)
    unanswered: list[Callable[[], None]] = []
    questions: list[tuple[int, Gap, Any]] = []
    # Gaps, and questions that will turn out to be some: their `_id`, and the batches handed over before.
    before: dict[tuple[int, str], int] = {}
    for step in range(400):
        reader = chance.choice((1, 2))
        what = chance.choice(("batch", "batch", "answer", "answer", "gap", "ask", "tell", "save", "write"))
        if what == "batch":
            unanswered.append(run.hand_over(reader))
        elif what == "answer" and unanswered:
            unanswered.pop(chance.randrange(len(unanswered)))()
        elif what in ("gap", "ask"):
            # Far in the future, so that the other reader covers none.
            found = gap(10**6 + step, reader)
            before[reader, run.gaps._document_id(found)] = run.handed[reader]
            if what == "gap":
                run.gaps.report(reader, found)
            else:
                questions.append((reader, found, run.counters.hold(reader)))
        elif what == "tell" and questions:
            run.gaps.report(*questions.pop(chance.randrange(len(questions))))
        elif what == "save":
            run.save()
        elif what == "write":
            run.gaps.write()
        for (owner, doc_id), batches in before.items():
            assert doc_id in run.cluster.gaps or run.cursor(owner) <= batches * 10
    for one in questions:
        run.gaps.report(*one)
    for acknowledge in unanswered:
        acknowledge()
    run.gaps.write(final=True)
    run.save()
    assert len(run.cluster.gaps) == len(before)
    assert (run.cursor(1), run.cursor(2)) == (run.handed[1] * 10, run.handed[2] * 10)


# A host that does not say how far back it goes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def short(clock: Clock) -> Iterator[Simulator]:
    """Looks back a quarter of an hour only."""
    with Simulator(port=0, seed=1, clock=clock, manners=Manners(lookback=900)) as simulator:
        yield simulator


def test_a_host_that_never_says_how_far_back_it_goes_has_a_possible_gap(
    short: Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cursors_module, "oldest_event", lambda server, **_: asked.append(server))
    monkeypatch.setattr(Backoff, "next", lambda self: 0.0)
    away = filtered(short, clock)
    with reading(short, known=away, options=("--dids", QUIET)) as run:
        until(lambda: len(run.gaps) == 1)
    assert run.gaps[0].possible
    assert run.gaps[0].from_us == away.time_us
    assert abs(run.gaps[0].to_us / 1e6 - time.time()) < 60
    assert asked == [short.url] * 3


def test_a_bug_in_asking_holds_no_checkpoint_for_ever(
    short: Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(server: str, **_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cursors_module, "oldest_event", fails)
    monkeypatch.setattr(Backoff, "next", lambda self: 0.0)
    with reading(short, known=filtered(short, clock), options=("--dids", QUIET)) as run:
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
NEVER_SAYS = (
    "import time; from slurp.pipeline import resume; resume.oldest_event = lambda *_, **__: time.sleep(3600)"
)
WAITS_LONG = "from slurp.pipeline.gaps import GapRecorder; GapRecorder.__init__.__defaults__ = (3600.0,)"

Start = Callable[..., Worker]


@pytest.fixture
def start(es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path) -> Start:
    def begin(*options: str, patch: str = "") -> Worker:
        program = tmp_path / "patched.py"
        program.write_text(PATCHED.format(root=PROGRAM.parent, patch=patch))
        return Worker(
            *("--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana"),
            *("--stats-interval", "1s", "--flush", "200ms", *options),
            home=tmp_path,
            program=program if patch else PROGRAM,
        )

    return begin


def cursor_of(es: Elasticsearch, index: str, simulator: Simulator) -> int:
    es.indices.refresh(index="skeetslurper-state")
    wanted = {"index": index, "type": "checkpoint", "host": simulator.url.removeprefix("ws://")}
    query = {"bool": {"filter": [{"term": {name: value}} for name, value in wanted.items()]}}
    (hit,) = es.search(index="skeetslurper-state", query=query)["hits"]["hits"]
    return int(hit["_source"]["cursor"])


def let_it_save(worker: Worker, events: int) -> None:
    """Until so many events are acknowledged, and two more checkpoints could have been saved."""
    worker.wait_for(" received ")
    worker.wait_until_counted(lambda counted: counted["indexed"] >= events)
    time.sleep(2.5)


@pytest.mark.parametrize("how", slow_except(["SIGTERM", "kill -9"]))
def test_a_gap_behind_a_filter_survives_the_end_of_the_worker(
    start: Start, short: Simulator, clock: Clock, es: Elasticsearch, fresh_index_prefix: str, how: str
) -> None:
    quiet = ("--jetstream", short.url, "--dids", QUIET)
    clock.ago = 7200
    short.publish([spoken(clock)])
    with start(*quiet, "--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    clock.ago = 5400
    short.generate(1000, span=1)
    clock.ago = 0
    short.publish([spoken(clock)])
    with start(*quiet, patch=NEVER_SAYS) as worker:
        let_it_save(worker, 1)
        if how == "SIGTERM":
            assert worker.stop() == 0
            assert "the checkpoint stays before a possible gap" in worker.log
        else:
            worker.kill()
    assert not gap_documents(es, fresh_index_prefix)
    assert cursor_of(es, fresh_index_prefix, short) == 1, "the place before the gap"
    with start(*quiet, "--catch-up") as worker:
        assert worker.exit_code() == 0
    (document,) = gap_documents(es, fresh_index_prefix)
    assert document["possible"] is False
    assert cursor_of(es, fresh_index_prefix, short) == len(short.frames)


@pytest.mark.slow
def test_a_gap_that_waits_for_other_hosts_survives_kill_9(
    start: Start, short: Simulator, clock: Clock, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    both = ("--redundant", "--jetstream", short.url, "--jetstream", "ws://127.0.0.1:1")
    clock.ago = 7200
    short.generate(1000, span=1)
    with start(*both, "--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    clock.ago = 0
    short.generate(7000, span=7000)
    with start(*both, patch=WAITS_LONG) as worker:
        let_it_save(worker, 800)
        worker.process.send_signal(signal.SIGKILL)
        worker.exit_code()
    assert not gap_documents(es, fresh_index_prefix)
    assert cursor_of(es, fresh_index_prefix, short) == 1000, "the place before the gap"
    with start(*both, "--catch-up") as worker:
        assert worker.exit_code() == 0
    assert len(gap_documents(es, fresh_index_prefix)) == 1
    assert cursor_of(es, fresh_index_prefix, short) == 8000
