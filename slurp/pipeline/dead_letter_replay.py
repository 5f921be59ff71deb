"""Replay of dead letters and of quarantined documents: the work of `python -m slurp.deadletter`."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from elasticsearch import helpers

from slurp.config import Config
from slurp.documents.document import build
from slurp.elastic.bulk import Action, send
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import day_of_index
from slurp.elastic.error_classes import ItemClass, classify
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.readiness import wait_until_ready
from slurp.elastic.setup import Setup, load_lexicons
from slurp.errors import Exit, Fatal, Stopped, describe_bug
from slurp.events.frames import BadFrame
from slurp.events.frames import parse as parse_frame
from slurp.events.times import parse_time
from slurp.lexicons import Compiled
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.dead_letters import DeadLetterFile, frame_of
from slurp.pipeline.indexer import Indexer, Shutdown
from slurp.pipeline.progress import Counters
from slurp.process import StopSignals

log = logging.getLogger(__name__)

_BATCH = 500
_LOOK_EVERY = 0.1
# Seconds that a request in flight gets at the end. What it stores is a duplicate in the next run.
_WAIT_AT_END = 2.0
# A batch may take so many seconds, however short `--wait` is.
_LEAST_WAIT = 10.0


class Replay:
    """One run of the command. `run` blocks until it is over and returns the exit code.

    The work is done on a thread of its own, so that neither a signal nor `--wait` is delayed by a request.
    """

    def __init__(self, elastic: Elastic, config: Config, path: Path | None, quarantined: bool) -> None:
        """`path` is the file with the letters, if any; `quarantined` whether to free documents as well."""
        self._elastic = elastic
        self._config = config
        self._path = path
        self._quarantined = quarantined
        self._shutdown = Shutdown()
        self._outage_log = OutageLog()
        self._counters = Counters()
        self._freed = self._kept = 0
        # When the last batch was done, from the moment when the cluster is ready.
        self._progress: float | None = None
        self._limit = max(config.wait, _LEAST_WAIT)
        self._code = Exit.FAILED

    def run(self, signals: StopSignals) -> Exit:
        thread = threading.Thread(target=self._guard, name="replay", daemon=True)
        if not signals.requested:
            thread.start()
        while thread.is_alive() and not (signals.requested or self._is_stalled):
            thread.join(_LOOK_EVERY)
        if not (thread.is_alive() or signals.requested):
            return self._code
        self._shutdown.deadline = time.monotonic()
        self._shutdown.stop.set()
        until = time.monotonic() + _WAIT_AT_END
        while thread.is_alive() and time.monotonic() < until and not signals.again:
            thread.join(_LOOK_EVERY)
        reason = "stopped by a signal" if signals.requested else self._stall()
        log.error("%s; %s; the rest can be sent by running the command again", reason, self._counts())
        return Exit.FAILED

    @property
    def _is_stalled(self) -> bool:
        return self._progress is not None and time.monotonic() - self._progress >= self._limit

    def _stall(self) -> str:
        lasting = self._outage_log.lasting_outage
        reason = lasting[1] if lasting else "no answer"
        return f"Elasticsearch: {reason}; given up after {self._limit:.0f} s without progress (--wait)"

    def _counts(self) -> str:
        parts = []
        if self._path is not None:
            now = self._counters.snapshot()
            parts.append(
                f"{self._path}: {now.received} letters = indexed {now.indexed} + duplicates {now.duplicates}"
                f" + quarantined {now.quarantined} + still refused {now.dead_lettered}"
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
        """Whether all is in Elasticsearch after that."""
        compiled = load_lexicons(self._config)
        if self._path is not None:
            # Before the wait, so that a wrong name is reported at once.
            self._path.open("rb").close()
            _remaining(self._path).close()
        wait_until_ready(self._elastic, self._config, self._shutdown.stop)
        self._progress = time.monotonic()
        left = 0
        if self._path is not None:
            left += self._letters(self._path, compiled)
        if self._quarantined and not self._shutdown.stop.is_set():
            left += self._documents(compiled)
        return not left and not self._shutdown.stop.is_set()

    def _letters(self, path: Path, compiled: Compiled) -> int:
        """Feed the letters in `path` through an indexer; how many are not in Elasticsearch after that."""
        config, elastic = self._config, self._elastic
        # Whoever replays need not know with which options the worker made its templates.
        work = Setup(dataclasses.replace(config, no_setup=True), compiled)
        work.run(elastic.client)
        days = DailyIndices(elastic, config.index, config.retention_days, work.put_templates)
        days.disk_state.load()
        buffer, counters = BatchQueue(_BATCH, 1), self._counters
        with path.open("rb") as lines, _remaining(path) as remaining:
            indexer = Indexer(
                elastic,
                days,
                remaining,
                buffer,
                counters,
                self._outage_log,
                self._shutdown,
                typed=frozenset(compiled.record_types),
            )
            for number, (host, arrived, frames) in enumerate(_batches(lines), start=1):
                batch = Batch(number, host, frames, sum(map(len, frames)), None, arrived)
                buffer.reserve(batch, 0)
                counters.received(batch)
                buffer.put(batch)
                if not indexer.step():
                    return len(frames)
                self._progress = time.monotonic()
        log.info("%s", self._counts())
        counted = counters.snapshot()
        if counted.dead_lettered:
            log.warning("%d remain in %s", counted.dead_lettered, remaining.path)
        if counted.dropped:
            log.warning("%d were dropped by an ingest pipeline, only %s has them", counted.dropped, path)
        if counted.expired:
            log.warning(
                "%d of days past --retention, or deleted for --max-disk, were not sent; only %s has them",
                counted.expired,
                path,
            )
        return counted.dead_lettered + counted.expired

    def _documents(self, compiled: Compiled) -> int:
        """Build quarantined documents again and overwrite them; how many stay in quarantine."""
        client, index, typed = self._elastic.client, self._config.index, frozenset(compiled.record_types)
        client.indices.refresh(index=f"{index}-*")
        query = {"query": {"exists": {"field": "quarantine.error"}}, "seq_no_primary_term": True}
        hits = helpers.scan(client, query=query, index=f"{index}-*", size=_BATCH)
        while (chunk := list(islice(hits, _BATCH))) and not self._shutdown.stop.is_set():
            actions = [action for hit in chunk if (action := _again(hit, index, typed)) is not None]
            self._kept += len(chunk) - len(actions)
            for item in send(client, actions) if actions else ():
                verdict = classify(item)
                if verdict is ItemClass.INDEXED:
                    self._freed += 1
                elif verdict is ItemClass.DROPPED:
                    self._kept += 1
                    log.warning("stays in quarantine: an ingest pipeline drops it")
                elif verdict in (ItemClass.DOCUMENT_ERROR, ItemClass.DUPLICATE, ItemClass.UNKNOWN_ERROR):
                    self._kept += 1
                    log.warning("stays in quarantine: %s", item)
                else:
                    raise Fatal(f"Elasticsearch: {item}; {self._counts()}; run the command again later")
            self._progress = time.monotonic()
        if not self._shutdown.stop.is_set():
            log.info("quarantine: %d freed, %d stay", self._freed, self._kept)
        return self._kept


def _remaining(path: Path) -> DeadLetterFile:
    """Return the file for what is still rejected. Raises Fatal when it cannot be written."""
    # No limit: it holds no more than FILE does.
    remaining = DeadLetterFile(path.with_name(f"{path.name}.remaining"), limit=None)
    remaining.check()
    return remaining


def _again(hit: dict[str, Any], index: str, typed: Container[str]) -> Action | None:
    """The overwrite of a quarantined document; None where it can't be built from its raw JSON."""
    source = hit["_source"]
    try:
        event = parse_frame(source["quarantine"]["raw"].encode())
        for mark in ("resync", "bootstrap"):
            if source.get("commit", {}).get(mark):
                event["commit"][mark] = True  # of which its frame knows nothing
        arrived_us = parse_time(source["event"]["ingested"]) or 0
        # As it was when it came, so that its @timestamp stays.
        document = build(event, source["jetstream"]["host"], arrived_us, typed, now_us=arrived_us)
    except BadFrame as error:
        log.warning("%s stays in quarantine: %s", hit["_id"], error)
        return None
    except MemoryError:
        raise
    except Exception as error:
        log.warning("%s stays in quarantine: no document can be built: %s", hit["_id"], describe_bug(error))
        return None
    if document.id != hit["_id"] or day_of_index(index, hit["_index"]) is None:
        log.warning("%s is no document of ours, leaving it alone", hit["_id"])
        return None
    header = {
        "index": {
            "_index": hit["_index"],
            "_id": hit["_id"],
            # Not over what somebody else has written since.
            "if_seq_no": hit["_seq_no"],
            "if_primary_term": hit["_primary_term"],
        }
    }
    return b"%b\n%b" % (orjson.dumps(header), document.body)


def _batches(lines: Iterator[bytes]) -> Iterator[tuple[str, float, list[bytes]]]:
    """Host, time of arrival (Unix seconds) and frames of letters that follow one another."""
    place: tuple[str, str] | None = None
    frames: list[bytes] = []
    for line in lines:
        try:
            letter = orjson.loads(line)
            here, frame = (str(letter["host"]), str(letter["at"])), frame_of(letter)
        except (ValueError, KeyError, TypeError):
            # Half a line, of a crash: it is kept as it is.
            here, frame = ("unknown", ""), line.rstrip(b"\n")
        if frames and (here != place or len(frames) == _BATCH):
            yield _batch(place, frames)
            frames = []
        place = here
        if frame:
            frames.append(frame)
    if frames:
        yield _batch(place, frames)


def _batch(place: tuple[str, str] | None, frames: list[bytes]) -> tuple[str, float, list[bytes]]:
    host, at = place or ("unknown", "")
    return host, (parse_time(at) or 0) / 1e6, frames
