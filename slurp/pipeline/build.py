"""Wiring of a pipeline: the readers and indexers of a channel, which holds queue and progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slurp.config import Config
from slurp.documents.document import SHAPES
from slurp.elastic.bulk import RequestObserver
from slurp.elastic.unknown_fields import UnknownFields
from slurp.lexicons import RecordShapes
from slurp.pipeline.channel import Channel
from slurp.pipeline.delivery import Destination, IndexerHooks
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.reader import Reader, Source
from slurp.pipeline.reader_group import ReaderGroup
from slurp.pipeline.resume import GapCallback, ReaderHooks, ignore_gap

# Prefixes of thread names; a number from 1 follows.
READER, INDEXER = "reader-", "indexer-"


@dataclass(frozen=True)
class Records:
    """The shapes of records that have mapped fields, and the counter of fields without a mapping."""

    shapes: RecordShapes = SHAPES
    unknown_fields: UnknownFields | None = None


@dataclass(frozen=True)
class PipelineHooks:
    """Callbacks of the threads of a pipeline.

    Attributes:
        beat_of: returns the beat of a thread by its name, see `ReaderHooks` and `IndexerHooks`.
        on_gap: called with each gap.
        batch_took, bulk_took: see `IndexerHooks`.
    """

    beat_of: Callable[[str], Callable[[], None]] = lambda name: lambda: None
    on_gap: GapCallback = ignore_gap
    batch_took: Callable[[float], None] = lambda seconds: None
    bulk_took: RequestObserver = lambda seconds, answered: None


@dataclass(frozen=True)
class Pipeline:
    """Readers and indexers that share a channel. Each has a `step` for its thread to repeat until False."""

    channel: Channel
    readers: ReaderGroup
    indexers: tuple[Indexer, ...]


def build_pipeline(
    config: Config,
    channel: Channel,
    destination: Destination,
    records: Records | None = None,
    sources: Sequence[Source] = (),
    hooks: PipelineHooks | None = None,
) -> Pipeline:
    """Return a pipeline with one reader for each source and `--indexers` indexers; no thread is started.

    Without sources the caller puts batches into the queue of `channel` itself.
    """
    records = records or Records()
    hooks = hooks or PipelineHooks()
    readers = [
        Reader(
            config,
            source,
            channel,
            number,
            ReaderHooks(hooks.beat_of(f"{READER}{number}"), hooks.on_gap),
        )
        for number, source in enumerate(sources, start=1)
    ]
    indexers = [
        Indexer(
            channel,
            destination,
            records.shapes,
            records.unknown_fields,
            IndexerHooks(hooks.beat_of(f"{INDEXER}{number}"), hooks.batch_took, hooks.bulk_took),
        )
        for number in range(1, config.indexers + 1)
    ]
    return Pipeline(channel, ReaderGroup(readers), tuple(indexers))
