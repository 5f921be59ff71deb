"""The zstd dictionary of the simulated server: trained once on a made-up network, renamed on request."""

from __future__ import annotations

import threading
from functools import lru_cache

import orjson
import zstandard

from slurp.simulator import wire2
from slurp.simulator.network import Network

_SIZE = 65_536
_SAMPLES = 2000
_FIRST_ID = 20260811
_LEVEL = 3


class Dictionary:
    """One that connections compress with. Not thread-safe: each connection has its own."""

    def __init__(self, id: int) -> None:
        self.id = id
        data = _trained()
        self.data = data[:4] + id.to_bytes(4, "little") + data[8:]
        content = zstandard.ZstdCompressionDict(self.data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=content)

    def compress(self, frame: bytes) -> bytes:
        return self._compressor.compress(frame)


class Dictionaries:
    """Which one is current; the others are unknown to the server."""

    def __init__(self) -> None:
        self.id = _FIRST_ID

    def current(self) -> Dictionary:
        return Dictionary(self.id)

    def rotate(self) -> int:
        """Forget the current one and offer another; its id."""
        self.id += 1
        return self.id


_training = threading.Lock()


def _trained() -> bytes:
    with _training:
        return _train()


@lru_cache(maxsize=1)
def _train() -> bytes:
    network = Network(seed=815, people=500)
    samples: list[bytes | bytearray | memoryview] = []
    for seq in range(1, _SAMPLES + 1):
        event = orjson.loads(network.event(1_790_000_000_000_000 + seq * 1000, seq).frame)
        samples.append(wire2.frame(event, seq))
    # Fixed parameters: finding the best ones takes twenty times as long.
    return zstandard.train_dictionary(_SIZE, samples, k=1024, d=8, dict_id=_FIRST_ID).as_bytes()
