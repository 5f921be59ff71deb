"""The zstd dictionary of the simulated server: trained once on generated events, replaced on request."""

from __future__ import annotations

import threading
from functools import lru_cache

import orjson
import zstandard

from slurp.simulator import protocol_v2
from slurp.simulator.event_generator import EventGenerator
from slurp.simulator.options import NetworkOptions

_SIZE = 65_536
_SAMPLES = 2000
_FIRST_ID = 20260811
_LEVEL = 3


class Dictionary:
    """A dictionary with a compressor. Not thread-safe: each connection has its own."""

    def __init__(self, id: int) -> None:
        self.id = id
        data = _trained()
        # Bytes 4 to 7 of the zstd dictionary format are its id.
        self.data = data[:4] + id.to_bytes(4, "little") + data[8:]
        content = zstandard.ZstdCompressionDict(self.data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=content)

    def compress(self, frame: bytes) -> bytes:
        """Return the frame compressed with this dictionary."""
        return self._compressor.compress(frame)


class CurrentDictionary:
    """The dictionary that the server offers; requests with another id are rejected."""

    def __init__(self) -> None:
        self.id = _FIRST_ID

    def create(self) -> Dictionary:
        """Return a new instance of the current dictionary."""
        return Dictionary(self.id)

    def rotate(self) -> int:
        """Replace the dictionary by another and return the new id."""
        self.id += 1
        return self.id


_training = threading.Lock()


def _trained() -> bytes:
    with _training:
        return _train()


@lru_cache(maxsize=1)
def _train() -> bytes:
    generator = EventGenerator(815, NetworkOptions(accounts=500))
    samples: list[bytes | bytearray | memoryview] = []
    for seq in range(1, _SAMPLES + 1):
        event = orjson.loads(generator.event(1_790_000_000_000_000 + seq * 1000, seq).frame)
        samples.append(protocol_v2.frame(event, seq))
    # Fixed parameters: a search for the best ones takes twenty times as long.
    return zstandard.train_dictionary(_SIZE, samples, k=1024, d=8, dict_id=_FIRST_ID).as_bytes()
