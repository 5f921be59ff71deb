"""The zstd dictionary of a Jetstream server, and frames that were compressed with it.

The dictionary is kept in memory only: it is 64 kB, fetched once for each host and run, and a file
would have to be found, trusted and thrown away.
"""

from __future__ import annotations

import threading
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
import zstandard

from slurp.events.frames import DIGEST_SIZE, MAX_FRAME_BYTES, oversized_frame
from slurp.proxies import BadProxy, proxy_for

PATH = "/xrpc/network.bsky.jetstream.getZstdDictionary"

_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
_MAX_DICTIONARY = 2_000_000
# To connect, and to wait for bytes. A host that is down is found out by the connection that follows.
_TIMEOUT = (3.0, 10.0)
_DEADLINE = 20.0
_PIECE = 65_536

# What a frame may make the decoder allocate for looking back; those of a server need no more than they hold.
_MAX_WINDOW = MAX_FRAME_BYTES


# A host that answers so has no dictionary. Any other answer may be one of a gateway, or of a host in trouble.
_HAS_NONE = (404, 405, 410, 501)


class NoDictionary(Exception):
    """The server offers none, or one that is of no use; the text says why."""


class DictionaryUnavailable(NoDictionary):
    """It could not be fetched now; the server may well offer one."""


class Dictionary:
    """A dictionary with the id that frames name it by. For one thread at a time."""

    def __init__(self, data: bytes) -> None:
        """Raises NoDictionary for what is none."""
        if data[:4] != _DICTIONARY_MAGIC:
            raise NoDictionary("what the server sends is no zstd dictionary")
        try:
            content = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
            self.id = content.dict_id()
            self._decoder = zstandard.ZstdDecompressor(dict_data=content, max_window_size=_MAX_WINDOW)
            # A damaged one is noticed only when it is used, and would cost every single frame.
            sample = zstandard.ZstdCompressor(dict_data=content).compress(b"sample")
            self._decoder.decompress(sample, max_output_size=_PIECE)
        except zstandard.ZstdError as error:
            raise NoDictionary(f"the server's zstd dictionary is damaged: {error}") from None

    def unpack(self, data: bytes) -> bytes:
        """The frame inside `data`; a stub when it is too large; `data` itself when it can't be read."""
        if not data.startswith(_FRAME_MAGIC):
            return data
        try:
            size = zstandard.frame_content_size(data)
            if size > MAX_FRAME_BYTES:
                return _stub(data, size)
            if size >= 0:
                return self._decoder.decompress(data)
            return self._unpack_unsized(data)
        except zstandard.ZstdError:
            return data

    def _unpack_unsized(self, data: bytes) -> bytes:
        """A frame that does not tell its size is read piece by piece, and no further than it may be long."""
        pieces: list[bytes] = []
        size = 0
        with self._decoder.stream_reader(data) as reader:
            while piece := reader.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_FRAME_BYTES:
                    return _stub(data, None)
        return b"".join(pieces)


def _stub(data: bytes, size: int | None) -> bytes:
    return oversized_frame(len(data), blake2b(data, digest_size=DIGEST_SIZE).hexdigest(), decompressed=size)


def fetch(server: str, id: int | None = None, ca: Path | None = None) -> Dictionary:
    """Fetch the dictionary of a server (`ws(s)://…`), that with `id` if it is given.

    Without an id a cache on the way may answer with one of the past. `ca` has the certificates to
    verify with.

    Raises:
        DictionaryUnavailable: it could not be fetched now. Also after _DEADLINE, as the time-outs of
            `requests` begin anew with each byte that trickles in.
        NoDictionary: the server has none, or one that is of no use.
    """
    found: list[Dictionary | NoDictionary] = []

    def work() -> None:
        try:
            found.append(_fetch(server, id, ca))
        except NoDictionary as error:
            found.append(error)

    thread = threading.Thread(target=work, name="dictionary", daemon=True)
    thread.start()
    thread.join(_DEADLINE)
    if not found:
        raise DictionaryUnavailable(f"no zstd dictionary within {_DEADLINE:.0f} s")
    if isinstance(found[0], NoDictionary):
        raise found[0]
    return found[0]


def _fetch(server: str, id: int | None, ca: Path | None) -> Dictionary:
    parts = urlsplit(server)
    scheme = "https" if parts.scheme == "wss" else "http"
    url = urlunsplit((scheme, parts.netloc, parts.path + PATH, "", ""))
    try:
        proxy = proxy_for(url)
    except BadProxy as error:
        raise DictionaryUnavailable(f"no zstd dictionary: {error}") from None
    try:
        with requests.get(
            url,
            params={} if id is None else {"id": id},
            timeout=_TIMEOUT,
            stream=True,
            # As for the stream: a server may not send us elsewhere.
            allow_redirects=False,
            verify=str(ca) if ca else True,
            # An empty one keeps the library from looking into the environment itself.
            proxies={scheme: "" if proxy is None else proxy.url},
        ) as answer:
            if answer.status_code != 200:
                # With an id it says that there is none with that id.
                has_none = id is None and answer.status_code in _HAS_NONE
                kind = NoDictionary if has_none else DictionaryUnavailable
                raise kind(f"no zstd dictionary: HTTP {answer.status_code}")
            data = bytearray()
            for piece in answer.iter_content(_PIECE):
                data += piece
                if len(data) > _MAX_DICTIONARY:
                    raise NoDictionary(f"a zstd dictionary of more than {_MAX_DICTIONARY:,} bytes")
    except requests.RequestException as error:
        raise DictionaryUnavailable(f"no zstd dictionary: {type(error).__name__}") from None
    return Dictionary(bytes(data))
