"""A connection to a Jetstream server as a stream of one protocol: how its frames are decoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from slurp.events.frames import (
    BadFrame,
    Notice,
    event_position,
    first_position,
    is_v2_commit,
    parse,
    parse_notice,
)
from slurp.events.position import Position
from slurp.jetstream.resyncs import ResyncTracker, SyncCursors
from slurp.jetstream.zstd_dictionary import Dictionary

log = logging.getLogger(__name__)

# Notices that events before the beginning of the stream were lost, or may have been.
_SERIOUS = ("OutdatedCursor", "FutureCursor")


@dataclass(frozen=True, slots=True)
class DecodedFrames:
    """Frames without the notices among them, in order, and the data that accompanies them into a batch.

    `position` is the position to resume at after them; None if no frame is a valid event.
    `announced` are cursors of resyncs, see `slurp.jetstream.resyncs`.
    """

    frames: list[bytes]
    position: Position | None
    announced: SyncCursors = field(default_factory=dict)


class V1Stream:
    """A stream of the v1 protocol, in which every frame is an event.

    `error` is the notice with which the server ended the stream; v1 has none.
    """

    name = "v1"
    error: Notice | None = None

    def __init__(self, connection: Any, cursor: int | None) -> None:
        """`cursor` is the cursor at which the stream begins, None if it is live."""
        self.connection = connection
        self.cursor = cursor

    def decompress(self, data: bytes) -> bytes:
        """Return the frame in a WebSocket message."""
        return data

    def decode(self, frames: list[bytes], host: str) -> DecodedFrames:
        """Return the events among the frames received since the last call."""
        return DecodedFrames(frames, first_position(reversed(frames), host))


class V2Stream(V1Stream):
    """A stream of the v2 protocol: optionally compressed, with #syncs, and with notices among the events."""

    def __init__(
        self, connection: Any, cursor: int | None, dictionary: Dictionary | None, resyncs: ResyncTracker
    ) -> None:
        super().__init__(connection, cursor)
        self.name = "v2" if dictionary is None else "v2 with zstd"
        self._resyncs = resyncs
        if dictionary is not None:
            self.decompress = dictionary.decompress  # type: ignore[method-assign]

    def decode(self, frames: list[bytes], host: str) -> DecodedFrames:
        frames = self._without_notices(frames, host)
        announced = self._resyncs.observe(frames, host)
        return DecodedFrames(frames, self._position(frames, host), announced)

    def _without_notices(self, frames: list[bytes], host: str) -> list[bytes]:
        notices = {
            index: notice
            for index, frame in enumerate(frames)
            if not is_v2_commit(frame) and (notice := parse_notice(frame)) is not None
        }
        if not notices:
            return frames
        for notice in notices.values():
            if notice.is_error:
                self.error = notice
            else:
                level = logging.WARNING if notice.name in _SERIOUS else logging.INFO
                log.log(level, "%s sent a notice: %s", host, notice)
        return [frame for index, frame in enumerate(frames) if index not in notices]

    def _position(self, frames: Sequence[bytes], host: str) -> Position | None:
        for frame in reversed(frames):
            try:
                event = parse(frame)
            except BadFrame:
                continue
            return self._resyncs.resume_position(event, event_position(event, host))
        return None
