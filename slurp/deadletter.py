"""`python -m slurp.deadletter replay FILE`: feed dead letters again, after what refused them was mended.

What is still refused goes to FILE.remaining; FILE stays as it is. Documents already there are
duplicates. With `--quarantined`, documents in quarantine are built again and overwritten. The set-up
is the worker's: it is looked at and not changed.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Container, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from elasticsearch import helpers

from slurp import logs
from slurp.config import Config, parse
from slurp.documents.document import build
from slurp.documents.identity import parse_time
from slurp.elastic.bulk import Action, send
from slurp.elastic.client import FAILURES, Elastic, Patience, describe
from slurp.elastic.days import Days
from slurp.elastic.deadletter import DeadLetterFile, frame_of
from slurp.elastic.indexer import Halt, Indexer
from slurp.elastic.lifecycle import day_in
from slurp.elastic.setup import Setup, lexicons
from slurp.elastic.verdict import Verdict, judge
from slurp.errors import Exit, Fatal
from slurp.flow import Batch, Buffer
from slurp.jetstream.wire import BadFrame
from slurp.jetstream.wire import parse as parse_frame
from slurp.lexicons import Compiled
from slurp.tally import Snapshot, Tally

log = logging.getLogger(__name__)

_BATCH = 500

_USAGE = """\
usage: python -m slurp.deadletter replay [FILE] [--quarantined] [OPTIONS]

Feed the dead letters in FILE again; what is still refused goes to FILE.remaining.
--quarantined frees documents in quarantine, too. OPTIONS are those of skeetslurper
for Elasticsearch: --es, --es-user, --es-pass-file, --index, …; give --lexicons and
--retention as the worker has them.\
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all are in Elasticsearch; 1: some remain, or the cluster is in trouble; 2: wrong usage."""
    path, quarantined, rest = _arguments(sys.argv[1:] if arguments is None else arguments)
    config = parse(rest)
    secrets = logs.Secrets(config.secrets)
    logs.set_up(config.log_level, config.log_format, secrets)
    elastic = Elastic(config, secrets)
    try:
        compiled, left = lexicons(config), 0
        if path is not None:
            left += replay(path, elastic, config, compiled)
        if quarantined:
            left += replay_quarantined(elastic, config, compiled)
    except Fatal as error:
        log.error("%s", error)
        return int(error.code)
    except FAILURES as error:
        log.error("Elasticsearch: %s; nothing is lost, do it again later", describe(error))
        return int(Exit.FAILED)
    except OSError as error:
        log.error("%s: %s", error.filename, error.strerror)
        return int(Exit.USAGE)
    finally:
        elastic.close()
    return int(Exit.FAILED if left else Exit.DONE)


def replay(path: Path, elastic: Elastic, config: Config, compiled: Compiled) -> int:
    """Feed the letters in `path` through an indexer; how many are not in Elasticsearch after that."""
    # Whoever replays need not know with which options the worker made its templates.
    work = Setup(dataclasses.replace(config, no_setup=True), compiled)
    work.run(elastic.client)
    days = Days(elastic, config.index, config.retention_days, work.put_templates)
    buffer, tally = Buffer(_BATCH, 1), Tally()
    with path.open("rb") as lines, _remaining(path) as remaining:
        indexer = Indexer(
            elastic,
            days,
            remaining,
            buffer,
            tally,
            Patience(),
            Halt(),
            typed=frozenset(compiled.record_types),
        )
        for number, (host, arrived, frames) in enumerate(_batches(lines), start=1):
            batch = Batch(number, host, frames, sum(map(len, frames)), None, arrived)
            buffer.reserve(batch, 0)
            tally.received(batch)
            buffer.put(batch)
            indexer.step()
    counted = tally.snapshot()
    log.info("%s: %s", path, _told(counted))
    if counted.dead_lettered:
        log.warning("%d remain in %s", counted.dead_lettered, remaining.path)
    if counted.expired:
        log.warning("%d of days past --retention were not sent, only %s has them", counted.expired, path)
    return counted.dead_lettered + counted.expired


def _remaining(path: Path) -> DeadLetterFile:
    """The file for what is still refused. Raises Fatal when it can't be written."""
    # No limit: it holds no more than FILE does.
    remaining = DeadLetterFile(path.with_name(f"{path.name}.remaining"), limit=None)
    remaining.check()
    return remaining


def replay_quarantined(elastic: Elastic, config: Config, compiled: Compiled) -> int:
    """Build quarantined documents again and overwrite them; how many stay in quarantine."""
    client, index, typed = elastic.client, config.index, frozenset(compiled.record_types)
    client.indices.refresh(index=f"{index}-*")
    query = {"query": {"exists": {"field": "quarantine.error"}}, "seq_no_primary_term": True}
    hits = helpers.scan(client, query=query, index=f"{index}-*", size=_BATCH)
    freed = left = 0
    while chunk := list(islice(hits, _BATCH)):
        actions = [action for hit in chunk if (action := _again(hit, index, typed)) is not None]
        left += len(chunk) - len(actions)
        for item in send(client, actions) if actions else ():
            verdict = judge(item)
            if verdict is Verdict.INDEXED:
                freed += 1
            elif verdict in (Verdict.DOCUMENT, Verdict.DUPLICATE):
                left += 1
                log.warning("stays in quarantine: %s", item)
            else:
                raise Fatal(f"Elasticsearch: {item}; the others stay in quarantine, do it again later")
    log.info("quarantine: %d freed, %d stay", freed, left)
    return left


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
    except (BadFrame, KeyError) as error:
        log.warning("%s stays in quarantine: %s", hit["_id"], error)
        return None
    if document.id != hit["_id"] or day_in(index, hit["_index"]) is None:
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


def _told(now: Snapshot) -> str:
    return (
        f"{now.received} letters = indexed {now.indexed} + duplicates {now.duplicates} + quarantined "
        f"{now.quarantined} + still refused {now.dead_lettered} + expired {now.expired}"
    )


def _arguments(arguments: Sequence[str]) -> tuple[Path | None, bool, list[str]]:
    """FILE, whether --quarantined, and the options for Elasticsearch. SystemExit for wrong usage."""
    command, *rest = arguments or ("",)
    if command in ("-h", "--help") or {"-h", "--help"} & {*rest}:
        print(_USAGE)
        raise SystemExit(Exit.DONE)
    # By hand: an optional FILE among options that another parser reads would swallow their values.
    path = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    quarantined = "--quarantined" in rest
    if command != "replay" or (path is None and not quarantined):
        print(_USAGE, file=sys.stderr)
        raise SystemExit(Exit.USAGE)
    return path, quarantined, [word for word in rest if word != "--quarantined"]


if __name__ == "__main__":
    sys.exit(main())
