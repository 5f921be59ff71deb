"""Frames of one reader to batches, with back-pressure while the queue is full."""

from __future__ import annotations

from slurp.jetstream.bootstrap import BootstrapDetector
from slurp.jetstream.servers import host_of
from slurp.jetstream.streams import V1Stream
from slurp.pipeline.batches import Batch
from slurp.pipeline.channel import Channel
from slurp.pipeline.resume import ReaderHooks, ReaderPosition

# Below the 10 MB of a bulk request, as documents are a little larger than their frames.
MAX_BATCH_BYTES = 5_000_000

_POLL = 0.25


class Batcher:
    """The frames received since the last batch, and the numbers of the batches.

    Attributes:
        frames: received frames, not queued yet.
        size: their bytes.
        began: when the first of them was received (monotonic seconds).
        undecodable_since: since when no frame could be decoded (monotonic seconds); None while some can be.
    """

    def __init__(self, channel: Channel, cursors: ReaderPosition, number: int, hooks: ReaderHooks) -> None:
        self.frames: list[bytes] = []
        self.size = 0
        self.began = 0.0
        self.undecodable_since: float | None = None
        self._channel = channel
        self._cursors = cursors
        self._number = number
        self._hooks = hooks
        self._bootstrap = BootstrapDetector()
        self._batches = 0

    def hand_over(self, stream: V1Stream, server: str) -> str:
        """Queue the frames as a batch, waiting for space in the queue: this is the back-pressure.

        Return why to reconnect, '' for no reason: the stream began at another place than requested, and the
        frames were discarded. During a shutdown frames may stay here; the next run reads them again.
        """
        if not self.frames:
            return ""
        host = host_of(server)
        decoded = stream.decode(self.frames, host)
        wrong = self._cursors.check(server, stream, decoded.frames) if decoded.frames else ""
        if not decoded.frames or wrong:
            self._clear()
            return wrong
        batch = Batch(
            reader=self._number,
            number=self._batches + 1,
            host=host,
            frames=decoded.frames,
            size=self.size,
            position=decoded.position,
            announced=decoded.announced,
            bootstrap=self._bootstrap.observe(decoded.frames, host, decoded.announced),
        )
        while not self._channel.queue.reserve(batch, timeout=_POLL):
            self._hooks.beat()
            if self._channel.shutdown.stop.is_set():
                return ""
        self._batches += 1
        if batch.position is not None:
            self._cursors.passed(batch.position)
            self.undecodable_since = None
        elif self.undecodable_since is None:
            self.undecodable_since = self.began
        self._channel.put(batch)
        self._clear()
        return ""

    def _clear(self) -> None:
        self.frames, self.size = [], 0
