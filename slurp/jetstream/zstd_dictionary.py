"""The zstd dictionary of a Jetstream server, and decompression of its frames.

The dictionary is kept in memory only: it is 64 kB, is fetched once per host and run, and a file would have to
be located, verified and expired.
"""

from __future__ import annotations

import threading
from hashlib import blake2b
from pathlib import Path

import requests
import zstandard

from slurp.addresses import http_url
from slurp.events.frames import DIGEST_SIZE, MAX_FRAME_BYTES, oversized_frame
from slurp.proxies import BadProxy, requests_proxies

PATH = "/xrpc/network.bsky.jetstream.getZstdDictionary"

_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
_MAX_DICTIONARY = 2_000_000
# Seconds to connect and to wait for bytes. An unreachable host is detected by the connection that follows.
_TIMEOUT = (3.0, 10.0)
_DEADLINE = 20.0
_PIECE = 65_536

# Maximum window that the decoder allocates for a frame; a server's frames need no more than their content.
_MAX_WINDOW = MAX_FRAME_BYTES

# These statuses mean that the host has no dictionary. Others may come from a gateway or a failing host.
_NO_DICTIONARY_STATUSES = (404, 405, 410, 501)


class NoDictionary(Exception):
    """The server has no dictionary, or an unusable one; the text is the reason."""


class DictionaryUnavailable(NoDictionary):
    """The dictionary could not be fetched now; the server may have one."""


class Dictionary:
    """A dictionary; frames refer to it by `id`. For one thread at a time."""

    def __init__(self, data: bytes) -> None:
        """Raises NoDictionary if `data` is not a usable dictionary."""
        if data[:4] != _DICTIONARY_MAGIC:
            raise NoDictionary("the server's response is not a zstd dictionary")
        try:
            content = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
            self.id = content.dict_id()
            self._decoder = zstandard.ZstdDecompressor(dict_data=content, max_window_size=_MAX_WINDOW)
            # A damaged dictionary is detected only in use, where it would cost every frame.
            sample = zstandard.ZstdCompressor(dict_data=content).compress(b"sample")
            self._decoder.decompress(sample, max_output_size=_PIECE)
        except zstandard.ZstdError as error:
            raise NoDictionary(f"the server's zstd dictionary is damaged: {error}") from None

    def decompress(self, data: bytes) -> bytes:
        """Return the frame inside `data`.

        Returns `oversized_frame` if it exceeds MAX_FRAME_BYTES, and `data` itself if it cannot be
        decompressed.
        """
        if not data.startswith(_FRAME_MAGIC):
            return data
        try:
            size = zstandard.frame_content_size(data)
            if size > MAX_FRAME_BYTES:
                return _oversized(data, size)
            if size >= 0:
                return self._decoder.decompress(data)
            return self._decompress_unsized(data)
        except zstandard.ZstdError:
            return data

    def _decompress_unsized(self, data: bytes) -> bytes:
        """Decompress a frame of undeclared size piece by piece, at most up to MAX_FRAME_BYTES."""
        pieces: list[bytes] = []
        size = 0
        with self._decoder.stream_reader(data) as reader:
            while piece := reader.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_FRAME_BYTES:
                    return _oversized(data, None)
        return b"".join(pieces)


def _oversized(data: bytes, size: int | None) -> bytes:
    return oversized_frame(len(data), blake2b(data, digest_size=DIGEST_SIZE).hexdigest(), decompressed=size)


def fetch_dictionary(server: str, id: int | None = None, ca: Path | None = None) -> Dictionary:
    """Fetch the dictionary of a server (`ws(s)://…`), the one with `id` if given.

    Without an id an HTTP cache may respond with an outdated one. `ca` has the certificates to verify with.

    Raises:
        DictionaryUnavailable: the fetch failed, or took more than _DEADLINE seconds (the time-outs of
            `requests` restart with each byte).
        NoDictionary: the server has none, or an unusable one.
    """
    result: list[Dictionary | NoDictionary] = []

    def work() -> None:
        try:
            result.append(_fetch(server, id, ca))
        except NoDictionary as error:
            result.append(error)

    thread = threading.Thread(target=work, name="dictionary", daemon=True)
    thread.start()
    thread.join(_DEADLINE)
    if not result:
        raise DictionaryUnavailable(f"no zstd dictionary within {_DEADLINE:.0f} s")
    if isinstance(result[0], NoDictionary):
        raise result[0]
    return result[0]


def _fetch(server: str, id: int | None, ca: Path | None) -> Dictionary:
    url = http_url(server, PATH)
    try:
        proxies = requests_proxies(url)
    except BadProxy as error:
        raise DictionaryUnavailable(f"no zstd dictionary: {error}") from None
    try:
        with requests.get(
            url,
            params={} if id is None else {"id": id},
            timeout=_TIMEOUT,
            stream=True,
            # As for the stream: a server must not redirect to another host.
            allow_redirects=False,
            verify=str(ca) if ca else True,
            proxies=proxies,
        ) as response:
            if response.status_code != 200:
                # With an id, the status refers to that id only.
                is_absent = id is None and response.status_code in _NO_DICTIONARY_STATUSES
                kind = NoDictionary if is_absent else DictionaryUnavailable
                raise kind(f"no zstd dictionary: HTTP {response.status_code}")
            data = bytearray()
            for piece in response.iter_content(_PIECE):
                data += piece
                if len(data) > _MAX_DICTIONARY:
                    raise NoDictionary(f"a zstd dictionary of more than {_MAX_DICTIONARY:,} bytes")
    except requests.RequestException as error:
        raise DictionaryUnavailable(f"no zstd dictionary: {type(error).__name__}") from None
    return Dictionary(bytes(data))
