"""One connection to a Jetstream server, whichever wire it speaks: what comes in, and what it means."""

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
from slurp.jetstream.resyncs import Announced, Resyncs
from slurp.jetstream.zstd_dictionary import Dictionary

log = logging.getLogger(__name__)

# What was lost before the place where a stream begins, or may have been.
_SERIOUS = ("OutdatedCursor", "FutureCursor")


@dataclass(frozen=True, slots=True)
class DecodedFrames:
    """Frames of events, in order, and what goes with them into a batch."""

    frames: list[bytes]
    position: Position | None
    announced: Announced = field(default_factory=dict)


class V1Stream:
    """The v1 wire: every frame is an event."""

    name = "v1"
    error: Notice | None = None

    def __init__(self, connection: Any, cursor: int | None) -> None:
        """`cursor` is where it begins, None where it is live."""
        self.connection = connection
        self.cursor = cursor

    def unpack(self, data: bytes) -> bytes:
        """The frame in a message."""
        return data

    def portion(self, frames: list[bytes], host: str) -> DecodedFrames:
        """The events among the frames since the last portion."""
        return DecodedFrames(frames, first_position(reversed(frames), host))


class V2Stream(V1Stream):
    """The v2 wire: perhaps compressed, with #syncs, and with notices among the events."""

    def __init__(
        self, connection: Any, cursor: int | None, dictionary: Dictionary | None, resyncs: Resyncs
    ) -> None:
        super().__init__(connection, cursor)
        self.name = "v2" if dictionary is None else "v2 with zstd"
        self._resyncs = resyncs
        if dictionary is not None:
            self.unpack = dictionary.unpack  # type: ignore[method-assign]

    def portion(self, frames: list[bytes], host: str) -> DecodedFrames:
        frames = self._without_notices(frames, host)
        announced = self._resyncs.look_through(frames, host)
        return DecodedFrames(frames, self._position(frames, host), announced)

    def _without_notices(self, frames: list[bytes], host: str) -> list[bytes]:
        notices = {
            place: notice
            for place, frame in enumerate(frames)
            if not is_v2_commit(frame) and (notice := parse_notice(frame)) is not None
        }
        if not notices:
            return frames
        for notice in notices.values():
            if notice.is_error:
                self.error = notice
            else:
                level = logging.WARNING if notice.name in _SERIOUS else logging.INFO
                log.log(level, "%s says: %s", host, notice)
        return [frame for place, frame in enumerate(frames) if place not in notices]

    def _position(self, frames: Sequence[bytes], host: str) -> Position | None:
        for frame in reversed(frames):
            try:
                event = parse(frame)
            except BadFrame:
                continue
            return self._resyncs.resume_at(event, event_position(event, host))
        return None
