"""What goes out to a subscriber of either wire: which events of a batch, and as which bytes."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from slurp.simulator import wire, wire2
from slurp.simulator.dictionaries import Dictionary
from slurp.simulator.store import Batch


class V1:
    """Frames as the store holds them, but for what v1 hides: #syncs and the creates that follow them."""

    updatable = True

    def select(self, batch: Batch, chosen: wire.Filter) -> list[bytes]:
        """The wanted frames."""
        if chosen.everything and 1 not in batch.hidden:
            return batch.frames
        columns = zip(batch.frames, batch.dids, batch.collections, batch.hidden, strict=True)
        return [
            frame
            for frame, did, collection, hidden in columns
            if not hidden and chosen.wants(collection, did, len(frame))
        ]

    def pack(self, frames: Iterable[bytes]) -> bytes:
        """WebSocket frames, ready to be sent."""
        return wire.text_frames(frames)

    def notice(self, name: str, message: str, *, is_error: bool) -> bytes:
        """v1 has no words for it."""
        return b""


def _message(stored: bytes, seq: int) -> tuple[str, bytes]:
    """The kind of what is stored, and its frame; of what is no event, nothing and what is stored."""
    try:
        event = orjson.loads(stored)
        return event["kind"], wire2.frame(event, seq)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return "", stored


class V2:
    """All events, in messages, perhaps compressed. Made anew for each subscriber: a test has few."""

    updatable = False

    def __init__(self, kinds: frozenset[str], dictionary: Dictionary | None) -> None:
        self._kinds = kinds
        self._dictionary = dictionary

    def select(self, batch: Batch, chosen: wire.Filter) -> list[bytes]:
        frames = []
        for stored, did, collection, seq in zip(
            batch.frames, batch.dids, batch.collections, batch.keys, strict=True
        ):
            kind, frame = _message(stored, seq)
            if self._kinds and kind not in self._kinds:
                continue
            if chosen.everything or chosen.wants(collection, did, len(frame)):
                frames.append(frame)
        return frames

    def pack(self, frames: Iterable[bytes]) -> bytes:
        if self._dictionary is None:
            return wire.text_frames(frames)
        return wire.binary_frames(map(self._dictionary.compress, frames))

    def notice(self, name: str, message: str, *, is_error: bool) -> bytes:
        return self.pack([wire2.error(name, message) if is_error else wire2.info(name, message)])
