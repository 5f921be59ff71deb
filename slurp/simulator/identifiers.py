"""TIDs, CIDs and ISO times at high rates: table lookups in place of arithmetic."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from slurp.events.tid import ALPHABET

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_TRIPLES = [pair + c for pair in _PAIRS for c in ALPHABET]
_TO_BASE32 = b"abcdefghijklmnopqrstuvwxyz234567" * 8


def tid(micros: int, clock: int) -> str:
    """Return the same as `slurp.events.tid.from_micros`, at a quarter of its cost."""
    return (
        _PAIRS[micros >> 45 & 1023]
        + _TRIPLES[micros >> 30 & 32767]
        + _TRIPLES[micros >> 15 & 32767]
        + _TRIPLES[micros & 32767]
        + _PAIRS[clock & 1023]
    )


class IsoFormatter:
    """Formats Unix microseconds as ISO 8601 with milliseconds; caches the last 100 seconds."""

    def __init__(self) -> None:
        self._seconds: dict[int, str] = {}

    def __call__(self, micros: int) -> str:
        second = micros // 1_000_000
        text = self._seconds.get(second)
        if text is None:
            if len(self._seconds) > 100:
                self._seconds.clear()
            text = (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.")
            self._seconds[second] = text
        return f"{text}{micros // 1000 % 1000:03d}Z"


class CidGenerator:
    """Well-formed CIDs without content: halves drawn from a pool, 16 million combinations."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        # The first character ends the multihash head with two zero bits, the last one carries two
        # bits of padding: strict parsers accept the result.
        self._heads = [rng.choice("abcdefgh") + base32_text(rng, 25) for _ in range(4096)]
        self._tails = [base32_text(rng, 25) + rng.choice("aeimquy4") for _ in range(4096)]

    def record(self) -> str:
        """Return the CID of a record."""
        bits = int(self._random() * 16_777_216)
        return f"bafyrei{self._heads[bits & 4095]}{self._tails[bits >> 12]}"

    def blob(self) -> str:
        """Return the CID of a blob."""
        bits = int(self._random() * 16_777_216)
        return f"bafkrei{self._heads[bits & 4095]}{self._tails[bits >> 12]}"


def base32_text(rng: random.Random, length: int) -> str:
    """Return random base32 characters."""
    return rng.randbytes(length).translate(_TO_BASE32).decode()
