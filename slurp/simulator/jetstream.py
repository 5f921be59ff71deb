"""The simulator: a Jetstream server and the sources of its events."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from slurp.simulator import recorded_events
from slurp.simulator.appview import SimulatedAppView
from slurp.simulator.archive import SimulatedArchive
from slurp.simulator.bursts import BurstAccount
from slurp.simulator.connection import ConnectionRecord
from slurp.simulator.dictionaries import CurrentDictionary
from slurp.simulator.endpoints import Endpoints
from slurp.simulator.event_generator import Action, EventGenerator
from slurp.simulator.event_store import EventStore, StoredEvent
from slurp.simulator.faults import Faults
from slurp.simulator.options import NetworkOptions, ServerOptions
from slurp.simulator.pacer import Pacer
from slurp.simulator.protocol_v1 import PATH
from slurp.simulator.server import Server
from slurp.simulator.timestamp_imports import TimestampImports

_BATCH = 1000
"""Events generated and appended together: a live subscriber waits for no more than these."""
_MAX_AHEAD = 20_000
"""How many events generation at rate 0 runs ahead of the slowest subscriber."""
_PROTOCOLS = {"v1": ("v1",), "v2": ("v2",), "both": ("v1", "v2")}


class Simulator:
    """A Jetstream server on this machine.

    >>> with Simulator(port=0, seed=1) as jetstream:
    ...     jetstream.generate(1000)            # history, immediately
    ...     jetstream.faults.cut_after(400)     # the next connection is cut after 400 frames
    ...     read_all(jetstream.url)

    `protocols` is `v1`, `v2` or `both`; `clock` returns Unix seconds.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        seed: int = 1,
        protocols: str = "both",
        network: NetworkOptions | None = None,
        server: ServerOptions | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if protocols not in _PROTOCOLS:
            raise ValueError(f"invalid protocols {protocols!r} (use v1, v2 or both)")
        network, server = network or NetworkOptions(), server or ServerOptions()
        self._clock = clock
        self._with_cursors = network.cursors
        self._rng = random.Random(seed)
        self._generator = EventGenerator(seed, network)
        self._store = EventStore(server.retain_bytes)
        self.faults = Faults(self._wake)
        self._dictionary = CurrentDictionary()
        self.appview = SimulatedAppView(lambda: list(self._generator.population.accounts))
        self.archive = SimulatedArchive(self._store, server.archive_segment, server.archive_block)
        self._resyncs: recorded_events.Resyncs = set()
        self._imports = TimestampImports()
        self._import_rng = random.Random(f"imports {seed}")
        endpoints = Endpoints(
            self._store,
            server,
            _PROTOCOLS[protocols],
            self._dictionary,
            self.appview,
            self.archive,
            self._now_us,
        )
        self._server = Server(port, endpoints, self.faults)
        # One producer at a time: an event is assigned its cursor before it is generated.
        self._producing = threading.Lock()
        self._pacers: list[Pacer] = []
        self._bursts: dict[str, BurstAccount] = {}
        self._published = 0

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The server.

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._server.host

    @property
    def port(self) -> int:
        """The port it listens on, or will listen on; 0 before a free one is chosen."""
        return self._server.port

    @property
    def url(self) -> str:
        """`ws://host:port`, a value for `--jetstream`."""
        return f"ws://{self.host}:{self.port}"

    @property
    def subscribe_url(self) -> str:
        """The URL of the v1 protocol, without parameters."""
        return self.url + PATH

    @property
    def dictionary_id(self) -> int:
        """The id of the zstd dictionary that v2 subscribers can use."""
        return self._dictionary.id

    def rotate_dictionary(self) -> int:
        """Replace the dictionary and return the new id; requests with the old id are rejected."""
        return self._dictionary.rotate()

    def start(self) -> None:
        """Listen; after `stop()` on the same port."""
        self._server.start()

    def stop(self, *, clean: bool = True) -> None:
        """Close all connections with 1001, or without `clean` as if killed. Producers keep running."""
        self._server.stop(clean)

    def restart(self, *, unclean: int = 0, lost: int = 0, wiped: bool = False, downtime: float = 0.0) -> None:
        """Stop and restart on the same port, after `downtime` seconds.

        `unclean`: as after a kill; this many of the last events are reordered and exchange their
        cursors. `lost`: closed with 1001, as with a full disk, but this many of the last events were
        not stored: they and the events received during the downtime are numbered again in another
        order. `wiped`: with an empty store and sequence numbers from 1.
        """
        self.stop(clean=not (unclean or wiped))
        kept = self._store.end - lost
        with self._producing:
            if wiped:
                self._store.wipe()
                self.archive.wipe()
            elif unclean:
                self._store.renumber(unclean, self._rng)
        time.sleep(downtime)
        if lost:
            with self._producing:
                self._store.renumber(self._store.end - kept, self._rng)
        self.start()

    def import_timestamps(self, count: int, share: float) -> int:
        """Change the time of a `share` of the last `count` events to an earlier one, and that of all later
        updates of the same records. Return how many stored events changed."""
        with self._producing:
            return self._store.rewrite(
                count, lambda frame: self._imports.rewrite(frame, self._import_rng, share)
            )

    def close(self) -> None:
        """Stop all producers and close all connections with 1001."""
        self.pause()
        self.stop()

    @property
    def connections(self) -> list[ConnectionRecord]:
        """All connections so far, rejected ones included, in the order they were accepted."""
        return self._server.records

    @property
    def behind(self) -> int | None:
        """Events that the slowest subscriber has not received yet; None without subscribers."""
        return self._server.behind

    def wait_until(self, condition: Callable[[Simulator], object], timeout: float = 10.0) -> None:
        """Wait until the condition holds. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"condition not met within {timeout} s; connections: {self.connections}")
            time.sleep(0.005)

    # Events.

    @property
    def frames(self) -> list[bytes]:
        """All retained events in order, as v1 frames: the expected content of the index.

        Includes what the v1 protocol does not send: #syncs and the creates that follow them.
        """
        return self._store.frames()

    @property
    def published(self) -> int:
        """Number of events ever published, wiped and dropped ones included."""
        return self._published

    def publish(self, events: Iterable[bytes | Mapping[str, Any]]) -> Simulator:
        """Publish frames of either protocol unchanged, or dictionaries, which get a time and a cursor unless
        they have them. After a `sync` the creates of its DID and rev are hidden from v1."""
        return self._publish(events, recorded_events.from_frame)

    def _publish(
        self,
        events: Iterable[bytes | Mapping[str, Any]],
        read: Callable[[bytes, int, recorded_events.Resyncs], StoredEvent],
    ) -> Simulator:
        with self._producing:
            now, cursor = self._now_us(), self._store.next_cursor
            stored: list[StoredEvent] = []
            for event in events:
                if isinstance(event, bytes):
                    one = read(event, now, self._resyncs)
                else:
                    own_cursor = cursor if self._with_cursors else None
                    one = recorded_events.from_dict(event, now, own_cursor, self._resyncs)
                cursor = max(cursor, one.cursor if one.cursor is not None else cursor) + 1
                stored.append(one)
            self._append(stored)
        return self

    def generate(self, count: int, *, span: float = 60.0) -> Simulator:
        """Generate `count` events immediately, with times spread over the last `span` seconds.

        They start no earlier than the newest event.
        """
        begin = self._now_us() - round(span * 1e6)
        done = 0
        while done < count:
            batch = min(_BATCH, count - done)
            with self._producing:
                now = self._now_us()
                begin = max(begin, min(self._store.last_time, now))
                # The remaining events share the remaining time.
                end = begin + (now - begin) * batch // (count - done)
                self._append(self._generate(batch, begin, end))
            begin = end
            done += batch
        return self

    def run_at(self, rate: float, *, limit: int | None = None) -> Simulator:
        """Generate `rate` events per second in the background, at most `limit` in all.

        With rate 0, as fast as the slowest subscriber reads.
        """
        left = limit
        last = self._now_us()

        def produce(count: int) -> int:
            nonlocal left, last
            count = count if left is None else min(count, left)
            with self._producing:
                now = self._now_us()
                # A burst may have been published since.
                begin = max(last, self._store.last_time)
                self._append(self._generate(count, min(begin, now), now))
                last = now
            if left is not None:
                left -= count
                return count if left else 0
            return count

        self._pace(produce, rate, "generate")
        return self

    def write_account(self, records: int) -> str:
        """Publish a new account with `records` records immediately, and return its DID."""
        burst = BurstAccount(self._generator)
        self._bursts[burst.did] = burst
        self._burst(burst.write, records)
        return burst.did

    def delete_records(self, did: str, count: int | None = None) -> Simulator:
        """Delete the newest `count` records, or all, of an account of `write_account` immediately."""
        burst = self._bursts[did]
        self._burst(burst.delete_record, len(burst) if count is None else min(count, len(burst)))
        return self

    def delete_account(self, did: str) -> Simulator:
        """Publish the deletion of an account of `write_account`."""
        self._burst(self._bursts.pop(did).delete, 1)
        return self

    def load(
        self, path: str | Path, *, restamp: bool = False, rate: float = 0.0, limit: int | None = None
    ) -> Simulator:
        """Publish the lines of a .jsonl file unchanged; with `restamp`, their events are shifted to now.

        Lines that are not events are sent as well. Without a rate all lines are published immediately,
        otherwise in the background.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file")
        lines = islice(recorded_events.read_lines(path), limit)
        if rate > 0:
            self._pace(self._line_producer(lines, restamp), rate, "replay")
        elif restamp:
            # One shift for all events, so that their distances are kept; the newest happens now.
            by_us = self._now_us() - recorded_events.last_time(path)
            self._publish((recorded_events.shift(line, by_us) for line in lines), recorded_events.from_line)
        else:
            self._publish(lines, recorded_events.from_line)
        return self

    def pause(self) -> None:
        """Stop the producers started by `run_at` and `load(rate=…)`."""
        pacers, self._pacers = self._pacers, []
        for pacer in pacers:
            pacer.stop()

    @property
    def producing(self) -> bool:
        """Whether a producer is running in the background."""
        return any(pacer.running for pacer in self._pacers)

    def _line_producer(self, lines: Iterator[bytes], restamp: bool) -> Callable[[int], int]:
        def produce(count: int) -> int:
            batch = list(islice(lines, count))
            if restamp:
                now = self._now_us()
                batch = [recorded_events.shift_to(line, now) for line in batch]
            self._publish(batch, recorded_events.from_line)
            return len(batch)

        return produce

    def _pace(self, produce: Callable[[int], int], rate: float, purpose: str) -> None:
        self._pacers = [pacer for pacer in self._pacers if pacer.running]
        self._pacers.append(Pacer(produce, rate, self._room, f"simulator-{self.port}-{purpose}"))

    def _room(self) -> int:
        behind = self.behind
        return 0 if behind is None else _MAX_AHEAD - behind

    def _burst(self, action: Action, count: int) -> None:
        """Publish `count` events of `action`, all of them now."""
        for done in range(0, count, _BATCH):
            with self._producing:
                now = self._now_us()
                self._append(self._generate(min(_BATCH, count - done), now, now, action))

    def _generate(
        self, count: int, begin_us: int, end_us: int, action: Action | None = None
    ) -> list[StoredEvent]:
        cursor = self._store.next_cursor
        event, draw = self._generator.event, self._rng.random
        step = (end_us - begin_us) / count if count else 0.0
        time_us = begin_us
        events: list[StoredEvent] = []
        for number in range(count):
            # Two thirds of the real events have the same time as the previous one.
            if draw() < 0.34:
                time_us = begin_us + int(number * step)
            events.append(event(time_us, cursor + number, action))
        return events

    def _append(self, events: list[StoredEvent]) -> None:
        if self._imports:
            events = [event._replace(frame=self._imports.apply(event.frame)) for event in events]
        self._store.append(events)
        self.archive.collect()
        self._published += len(events)
        self._wake()

    def _wake(self) -> None:
        self._server.wake()

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
