"""The simulator as a whole: a server, its events and where they come from."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from slurp.simulator import replay
from slurp.simulator.connection import ConnectionRecord, Manners, Offer
from slurp.simulator.dictionaries import Dictionaries
from slurp.simulator.faults import Faults
from slurp.simulator.imports import Imports
from slurp.simulator.network import Network
from slurp.simulator.pace import Pacer
from slurp.simulator.server import Server
from slurp.simulator.store import Entry, Store
from slurp.simulator.wire import PATH

_PORTION = 1000
"""Events appended at once: a live subscriber waits for no more than these to be made."""
_AHEAD = 20_000
"""How far generation without a rate runs ahead of the slowest subscriber."""


class Simulator:
    """A Jetstream server on this machine.

    >>> with Simulator(port=0, seed=1) as jetstream:
    ...     jetstream.generate(1000)            # history, all at once
    ...     jetstream.faults.cut_after(400)     # the next subscriber is cut
    ...     read_all(jetstream.url)
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        seed: int = 1,
        people: int = 2000,
        odd_revs: float = 1 / 200,
        backdated: float = 0.0,
        cursors: bool = True,
        retain_bytes: int = 512 * 10**6,
        manners: Manners | None = None,
        protocols: str = "both",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._cursors = cursors
        self._rng = random.Random(seed)
        self._network = Network(seed, people, odd_revs=odd_revs, backdated=backdated, cursors=cursors)
        self._store = Store(retain_bytes)
        self.faults = Faults(self._wake)
        if protocols not in ("v1", "v2", "both"):
            raise ValueError(f"{protocols!r} are no protocols; write v1, v2 or both")
        wires = ("v1", "v2") if protocols == "both" else (protocols,)
        self._dictionaries = Dictionaries()
        self._resyncs: replay.Resyncs = set()
        self._imports = Imports()
        self._import_dice = random.Random(f"imports {seed}")
        offer = Offer(manners or Manners(), wires, self._dictionaries)
        self._server = Server(host, port, self._store, self.faults, offer, self._now_us)
        # Producers take turns: an event is given its cursor before it is made.
        self._producing = threading.Lock()
        self._pacers: list[Pacer] = []
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
        return self._server.host

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        """`ws://host:port`, as `--jetstream` takes it."""
        return f"ws://{self.host}:{self.port}"

    @property
    def subscribe_url(self) -> str:
        """The whole URL of the v1 wire, without parameters."""
        return self.url + PATH

    @property
    def dictionary_id(self) -> int:
        """Of the zstd dictionary that v2 subscribers can use."""
        return self._dictionaries.id

    def rotate_dictionary(self) -> int:
        """Retire the dictionary: who comes with it is refused. The id of the new one."""
        return self._dictionaries.rotate()

    def start(self) -> None:
        """Listen; after a `stop()` on the same port."""
        self._server.start()

    def stop(self, *, clean: bool = True) -> None:
        """Close with 1001 as a shutdown does; not `clean`: as if killed. Events go on being made."""
        self._server.stop(clean)

    def restart(self, *, unclean: int = 0, lost: int = 0, wiped: bool = False, downtime: float = 0.0) -> None:
        """Stop and come back on the same port.

        `unclean`: killed; that many of the last events come again in another order and use
        each other's cursors. `lost`: closed with 1001, as with a full disk, and yet that many of the
        last events were not stored: their numbers go to them and to those that came during the
        downtime, in another order. `wiped`: with an empty store, counting from 1 again.
        """
        self.stop(clean=not (unclean or wiped))
        kept = self._store.end - lost
        with self._producing:
            if wiped:
                self._store.wipe()
            elif unclean:
                self._store.renumber(unclean, self._rng)
        time.sleep(downtime)
        if lost:
            with self._producing:
                self._store.renumber(self._store.end - kept, self._rng)
        self.start()

    def import_timestamps(self, count: int, share: float) -> int:
        """Rewrite the time of a `share` of the last `count` events to an earlier one, and that of all later
        updates of the same records. Return how many of the stored ones changed."""
        with self._producing:
            return self._store.rewrite(
                count, lambda frame: self._imports.rewritten(frame, self._import_dice, share)
            )

    def close(self) -> None:
        """Stop making events, say goodbye to everybody."""
        self.pause()
        self.stop()

    @property
    def connections(self) -> list[ConnectionRecord]:
        """All connections so far, refused ones too, in the order they came."""
        return self._server.records

    @property
    def behind(self) -> int | None:
        """Events that the slowest subscriber still has to get; None while there is nobody."""
        return self._server.behind

    def wait_until(self, condition: Callable[[Simulator], object], timeout: float = 10.0) -> None:
        """Wait for something to become true of this simulator; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s; connections: {self.connections}")
            time.sleep(0.005)

    # Events.

    @property
    def frames(self) -> list[bytes]:
        """Everything published and still retained, in order: the oracle. In the shape of v1, also
        what v1 does not show: #syncs and the creates that follow them."""
        return self._store.frames()

    @property
    def published(self) -> int:
        """How many events there ever were, wiped and forgotten ones too."""
        return self._published

    def publish(self, events: Iterable[bytes | Mapping[str, Any]]) -> Simulator:
        """Frames of either wire as they are, or dictionaries, which get a time and a cursor unless
        they have one. After a `sync` the creates of its DID and rev are hidden from v1."""
        return self._publish(events, replay.read_entry)

    def _publish(
        self,
        events: Iterable[bytes | Mapping[str, Any]],
        read: Callable[[bytes, int, replay.Resyncs], Entry],
    ) -> Simulator:
        with self._producing:
            now, cursor = self._now_us(), self._store.next_cursor
            entries: list[Entry] = []
            for event in events:
                if isinstance(event, bytes):
                    entry = read(event, now, self._resyncs)
                else:
                    cursor_shown = cursor if self._cursors else None
                    entry = replay.complete(event, now, cursor_shown, self._resyncs)
                cursor = max(cursor, entry.cursor if entry.cursor is not None else cursor) + 1
                entries.append(entry)
            self._append(entries)
        return self

    def generate(self, count: int, *, span: float = 60.0) -> Simulator:
        """`count` new events at once, spread over the last `span` seconds.

        They begin no earlier than the newest event there is.
        """
        begin = self._now_us() - round(span * 1e6)
        done = 0
        while done < count:
            portion = min(_PORTION, count - done)
            with self._producing:
                now = self._now_us()
                begin = max(begin, min(self._store.last_time, now))
                # The rest of the events has the rest of the time.
                end = begin + (now - begin) * portion // (count - done)
                self._append(self._make(portion, begin, end))
            begin = end
            done += portion
        return self

    def run_at(self, rate: float, *, limit: int | None = None) -> Simulator:
        """Go on making `rate` events a second in the background, `limit` in all.

        Rate 0: as fast as the slowest subscriber reads.
        """
        left = limit
        last = self._now_us()

        def produce(count: int) -> int:
            nonlocal left, last
            count = count if left is None else min(count, left)
            with self._producing:
                now = self._now_us()
                self._append(self._make(count, min(last, now), now))
                last = now
            if left is not None:
                left -= count
                return count if left else 0
            return count

        self._pace(produce, rate, "generate")
        return self

    def load(
        self, path: str | Path, *, restamp: bool = False, rate: float = 0.0, limit: int | None = None
    ) -> Simulator:
        """The lines of a .jsonl file, byte for byte unless `restamp` moves their events to now. Lines
        that are no events are sent as well.

        Without a rate all at once, else in the background.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file")
        lines = islice(replay.read_lines(path), limit)
        if rate > 0:
            self._pace(self._reader(lines, restamp), rate, "replay")
        elif restamp:
            # One shift for all, so that the distances stay; the newest happens now.
            by_us = self._now_us() - replay.last_time(path)
            self._publish((replay.moved(line, by_us) for line in lines), replay.read_line)
        else:
            self._publish(lines, replay.read_line)
        return self

    def pause(self) -> None:
        """No more events from `run_at` and `load(rate=…)`."""
        pacers, self._pacers = self._pacers, []
        for pacer in pacers:
            pacer.stop()

    @property
    def producing(self) -> bool:
        """Whether something is still made or replayed in the background."""
        return any(pacer.running for pacer in self._pacers)

    def _reader(self, lines: Iterator[bytes], restamp: bool) -> Callable[[int], int]:
        def produce(count: int) -> int:
            part = list(islice(lines, count))
            if restamp:
                now = self._now_us()
                part = [replay.moved_to(line, now) for line in part]
            self._publish(part, replay.read_line)
            return len(part)

        return produce

    def _pace(self, produce: Callable[[int], int], rate: float, what: str) -> None:
        self._pacers = [pacer for pacer in self._pacers if pacer.running]
        self._pacers.append(Pacer(produce, rate, self._room, f"simulator-{self.port}-{what}"))

    def _room(self) -> int:
        behind = self.behind
        return 0 if behind is None else _AHEAD - behind

    def _make(self, count: int, begin_us: int, end_us: int) -> list[Entry]:
        cursor = self._store.next_cursor
        event, dice = self._network.event, self._rng.random
        step = (end_us - begin_us) / count if count else 0.0
        time_us = begin_us
        entries: list[Entry] = []
        for number in range(count):
            # Two thirds of the real events have the same time as the one before.
            if dice() < 0.34:
                time_us = begin_us + int(number * step)
            entries.append(event(time_us, cursor + number))
        return entries

    def _append(self, entries: list[Entry]) -> None:
        if self._imports:
            entries = [entry._replace(frame=self._imports.applied(entry.frame)) for entry in entries]
        self._store.append(entries)
        self._published += len(entries)
        self._wake()

    def _wake(self) -> None:
        self._server.wake()

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
