"""Replay of dead letters and of quarantined documents: the work of `python -m slurp.deadletter`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from elasticsearch import helpers

from slurp.config import Config
from slurp.documents.document import build
from slurp.elastic.bulk import Action, replace_hit, send
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import day_of_index
from slurp.elastic.error_classes import ItemClass, classify
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.readiness import wait_until_ready
from slurp.elastic.setup import Setup, load_lexicons
from slurp.errors import Exit, Fatal, Stopped, describe_bug
from slurp.events.frames import BadFrame, parse
from slurp.events.times import parse_time
from slurp.lexicons import Compiled, RecordShapes
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.build import Records, build_pipeline
from slurp.pipeline.channel import Channel
from slurp.pipeline.dead_letters import DeadLetterFile, frame_of
from slurp.pipeline.delivery import Destination
from slurp.pipeline.progress import Counters
from slurp.process import StopSignals

log = logging.getLogger(__name__)

_BATCH = 500
_POLL = 0.1
# Seconds for requests in flight at the end. What they store is a duplicate in the next run.
_WAIT_AT_END = 2.0
# Seconds that a batch may take at least, however short `--wait` is.
_MIN_WAIT = 10.0


@dataclass(frozen=True)
class Letters:
    """Dead letters that follow one another and were received from the same host at the same time."""

    host: str
    arrived_at: float  # Unix seconds
    frames: list[bytes]


class Replay:
    """One run of the command. `run` blocks until it is over and returns the exit code.

    The work is done on a thread of its own, so that no request delays a signal or the end of `--wait`.
    """

    def __init__(
        self,
        elastic: Elastic,
        config: Config,
        path: Path | None,
        quarantined: bool,
        after_batch: Callable[[list[bytes]], None] = lambda frames: None,
    ) -> None:
        """`path` is the dead-letter file, if any; `quarantined` whether to replay documents as well.
        `after_batch` is called with the frames of each batch of letters that was sent.
        """
        self._after_batch = after_batch
        self._elastic = elastic
        self._config = config
        self._path = path
        self._quarantined = quarantined
        self._channel = Channel(BatchQueue(_BATCH, 1), Counters())
        self._outage_log = OutageLog()
        self._freed = self._kept = 0
        # When the last batch was done (monotonic seconds); None before the cluster is ready.
        self._last_progress: float | None = None
        self._limit = max(config.wait, _MIN_WAIT)
        self._code = Exit.FAILED

    def run(self, signals: StopSignals) -> Exit:
        """Replay until all is done, a signal, or `--wait` without progress."""
        thread = threading.Thread(target=self._guard, name="replay", daemon=True)
        if not signals.requested:
            thread.start()
        while thread.is_alive() and not (signals.requested or self._is_stalled):
            thread.join(_POLL)
        if not (thread.is_alive() or signals.requested):
            return self._code
        shutdown = self._channel.shutdown
        shutdown.retry_until = time.monotonic()
        shutdown.stop.set()
        until = time.monotonic() + _WAIT_AT_END
        while thread.is_alive() and time.monotonic() < until and not signals.forced:
            thread.join(_POLL)
        reason = "stopped by a signal" if signals.requested else self._stall_reason()
        log.error("%s; %s; the rest can be sent by running the command again", reason, self._counts())
        return Exit.FAILED

    @property
    def _is_stalled(self) -> bool:
        return self._last_progress is not None and time.monotonic() - self._last_progress >= self._limit

    def _stall_reason(self) -> str:
        lasting = self._outage_log.lasting_outage
        reason = lasting[1] if lasting else "no response"
        return f"Elasticsearch: {reason}; stopped after {self._limit:.0f} s without progress (--wait)"

    def _counts(self) -> str:
        parts = []
        if self._path is not None:
            now = self._channel.counters.snapshot()
            parts.append(
                f"{self._path}: {now.received} letters = indexed {now.indexed} + duplicates {now.duplicates}"
                f" + quarantined {now.quarantined} + still rejected {now.dead_lettered}"
                f" + dropped {now.dropped} + expired {now.expired} + in flight {now.in_flight}"
            )
        if self._quarantined:
            parts.append(f"quarantine: {self._freed} freed, {self._kept} stay")
        return "; ".join(parts)

    def _guard(self) -> None:
        try:
            if self._work():
                self._code = Exit.DONE
        except Stopped:
            log.debug("stopped while waiting for Elasticsearch")
        except Fatal as error:
            self._code = error.code
            log.error("%s", error)
        except FAILURES as error:
            log.error(
                "Elasticsearch: %s; %s; the rest can be sent by running the command again",
                describe(error),
                self._counts(),
            )
        except OSError as error:
            self._code = Exit.USAGE
            log.error("%s: %s", error.filename, error.strerror)
        except Exception:
            log.exception("the replay failed, which is a bug; %s", self._counts())

    def _work(self) -> bool:
        """Replay; return whether all is in Elasticsearch now."""
        compiled = load_lexicons(self._config)
        if self._path is not None:
            # Before the wait, so that a wrong name is reported immediately.
            self._path.open("rb").close()
            _remaining(self._path).close()
        stop = self._channel.shutdown.stop
        wait_until_ready(self._elastic, self._config, stop)
        self._last_progress = time.monotonic()
        left = 0
        if self._path is not None:
            left += self._replay_letters(self._path, compiled)
        if self._quarantined and not stop.is_set():
            left += self._replay_documents(compiled)
        return not left and not stop.is_set()

    def _replay_letters(self, path: Path, compiled: Compiled) -> int:
        """Index the dead letters in `path`; return how many are not in Elasticsearch after that."""
        config, elastic, channel = self._config, self._elastic, self._channel
        # Never change the setup: the worker may have other options for it.
        work = Setup(replace(config, no_setup=True), compiled)
        work.run(elastic.client)
        indices = DailyIndices(elastic, config.index, config.retention_days, work.put_templates)
        indices.disk_state.load()
        with path.open("rb") as lines, _remaining(path) as remaining:
            pipeline = build_pipeline(
                replace(config, indexers=1),
                channel,
                Destination(elastic, indices, remaining, self._outage_log),
                Records(RecordShapes(compiled)),
            )
            (indexer,) = pipeline.indexers
            for number, letters in enumerate(_batches(lines), start=1):
                frames = letters.frames
                batch = Batch(number, letters.host, frames, sum(map(len, frames)), None, letters.arrived_at)
                channel.queue.reserve(batch, 0)
                channel.put(batch)
                if not indexer.step():
                    return len(frames)
                self._after_batch(frames)
                self._last_progress = time.monotonic()
        log.info("%s", self._counts())
        counted = channel.counters.snapshot()
        if counted.dead_lettered:
            log.warning("%d remain in %s", counted.dead_lettered, remaining.path)
        if counted.dropped:
            log.warning("%d were dropped by an ingest pipeline, only %s has them", counted.dropped, path)
        if counted.expired:
            log.warning(
                "%d have expired (--retention or --max-disk) and were not sent; only %s has them",
                counted.expired,
                path,
            )
        return counted.dead_lettered + counted.expired

    def _replay_documents(self, compiled: Compiled) -> int:
        """Build quarantined documents again and overwrite them; return how many stay in quarantine."""
        client, index, shapes = self._elastic.client, self._config.index, RecordShapes(compiled)
        stop = self._channel.shutdown.stop
        client.indices.refresh(index=f"{index}-*")
        query = {"query": {"exists": {"field": "quarantine.error"}}, "seq_no_primary_term": True}
        hits = helpers.scan(client, query=query, index=f"{index}-*", size=_BATCH)
        while (chunk := list(islice(hits, _BATCH))) and not stop.is_set():
            actions = [action for hit in chunk if (action := _overwrite(hit, index, shapes)) is not None]
            self._kept += len(chunk) - len(actions)
            for item in send(client, actions) if actions else ():
                found = classify(item)
                if found is ItemClass.INDEXED:
                    self._freed += 1
                elif found is ItemClass.DROPPED:
                    self._kept += 1
                    log.warning("stays in quarantine: an ingest pipeline drops it")
                elif found in (ItemClass.DOCUMENT_ERROR, ItemClass.DUPLICATE, ItemClass.UNKNOWN_ERROR):
                    self._kept += 1
                    log.warning("stays in quarantine: %s", item)
                else:
                    raise Fatal(f"Elasticsearch: {item}; {self._counts()}; run the command again later")
            self._last_progress = time.monotonic()
        if not stop.is_set():
            log.info("quarantine: %d freed, %d stay", self._freed, self._kept)
        return self._kept


def _remaining(path: Path) -> DeadLetterFile:
    """Return the file for letters that are rejected again. Raises Fatal when it cannot be written."""
    # Without a limit: it holds no more than FILE does.
    remaining = DeadLetterFile(path.with_name(f"{path.name}.remaining"), limit=None)
    remaining.check()
    return remaining


def _overwrite(hit: dict[str, Any], index: str, shapes: RecordShapes) -> Action | None:
    """Return the action that overwrites a quarantined document; None when none can be built."""
    source = hit["_source"]
    try:
        event = parse(source["quarantine"]["raw"].encode())
        for mark in ("resync", "bootstrap"):
            if source.get("commit", {}).get(mark):
                event["commit"][mark] = True  # not part of the frame
        arrived_us = parse_time(source["event"]["ingested"]) or 0
        # With the time of its arrival as now, so that its @timestamp stays.
        document = build(event, source["jetstream"]["host"], arrived_us, shapes, now_us=arrived_us)
    except BadFrame as error:
        log.warning("%s stays in quarantine: %s", hit["_id"], error)
        return None
    except MemoryError:
        raise
    except Exception as error:
        log.warning("%s stays in quarantine: no document can be built: %s", hit["_id"], describe_bug(error))
        return None
    if document.id != hit["_id"] or day_of_index(index, hit["_index"]) is None:
        log.warning("%s was not written by this program; skipping it", hit["_id"])
        return None
    body = document.body
    if source.get("hidden") is True:
        # The account is not active.
        body = body[:-1] + b',"hidden":true}'
    # Not over a later write of another program.
    return replace_hit(hit, body)


def _batches(lines: Iterator[bytes]) -> Iterator[Letters]:
    """Group the letters of a file by host and time of arrival, in their order."""
    current: tuple[str, str] = ("unknown", "")
    frames: list[bytes] = []
    for line in lines:
        try:
            letter = orjson.loads(line)
            origin, frame = (str(letter["host"]), str(letter["at"])), frame_of(letter)
        except (ValueError, KeyError, TypeError):
            # Part of a line, left by a crash: keep it as it is.
            origin, frame = ("unknown", ""), line.rstrip(b"\n")
        if frames and (origin != current or len(frames) == _BATCH):
            yield _letters(current, frames)
            frames = []
        current = origin
        if frame:
            frames.append(frame)
    if frames:
        yield _letters(current, frames)


def _letters(origin: tuple[str, str], frames: list[bytes]) -> Letters:
    host, at = origin
    return Letters(host, (parse_time(at) or 0) / 1e6, frames)
