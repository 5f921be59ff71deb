"""DAG-CBOR into JSON, as the WebSocket has it: a link is {"$link": CID}, bytes are {"$bytes": base64}. Pure.

libipld is ten times as fast as cbor2, but returns links as bytes, and rejects what the official server
accepts: keys that are not sorted, bytes after the end, NaN, floats of 16 bits. cbor2 decodes the rest.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any

import cbor2
import libipld
import orjson

_LINK_TAG = 42
_LINK_HEAD = b"\xd8\x2a"
# Of a CID: version 1, DAG-CBOR, SHA-256, 32 bytes.
_CID_HEAD = b"\x01\x71\x12\x20"
# Each value of bytes is looked for in all bytes of the record, so larger ones are left to cbor2.
_MAX_SEARCHED = 4096
# More than a frame may have that the worker can decode.
_MAX_DEPTH = 1100


class InvalidCbor(ValueError):
    """Bytes that are not DAG-CBOR; the text is the reason."""


def cid_of(data: bytes) -> str:
    """Return the CID of a record by its DAG-CBOR."""
    cid: str = libipld.encode_cid(_CID_HEAD + sha256(data).digest())
    return cid


def to_json(data: bytes, wrap: Callable[[Any], Any]) -> bytes:
    """Return `wrap(value)` of a DAG-CBOR value as JSON. Raises InvalidCbor."""
    try:
        return _dumps(wrap(libipld.decode_dag_cbor(data)), partial(_link_or_bytes, data=data))
    except (ValueError, TypeError, RecursionError):
        pass
    try:
        return _dumps(wrap(_decode_slowly(data)), _bytes)
    except (ValueError, TypeError, RecursionError, cbor2.CBORError) as error:
        raise InvalidCbor(str(error)) from None


def _dumps(value: Any, default: Callable[[Any], Any]) -> bytes:
    """Return a value as JSON. Raises TypeError and RecursionError."""
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        return orjson.dumps(value, default)
    except TypeError:
        # orjson has a limit of 254 levels, and refuses integers of more than 64 bits.
        return json.dumps(value, default=default, separators=(",", ":"), ensure_ascii=False).encode()


def _link_or_bytes(value: Any, data: bytes) -> Any:
    """Return the JSON value for bytes that libipld found in `data`.

    Their encoding is a header, then the bytes; that of a link is a tag, a header, a zero, then the bytes. One
    of them occurs; where both do, one may be in the middle of something else, and that raises TypeError.
    """
    if type(value) is not bytes:
        raise TypeError(f"a value of type {type(value).__name__}")
    if len(data) > _MAX_SEARCHED:
        raise TypeError("bytes in a large record")
    is_bytes = _header(len(value)) + value in data
    is_link = _LINK_HEAD + _header(len(value) + 1) + b"\0" + value in data
    if is_bytes == is_link:
        raise TypeError("bytes that may be a link")
    return {"$link": libipld.encode_cid(value)} if is_link else _bytes(value)


def _header(length: int) -> bytes:
    """Return the header of a byte string of this length in CBOR."""
    if length < 24:
        return bytes((0x40 + length,))
    if length < 2**8:
        return bytes((0x58, length))
    size = 2 if length < 2**16 else 4
    return bytes((0x59 if size == 2 else 0x5A,)) + length.to_bytes(size, "big")


def _bytes(value: Any) -> Any:
    if type(value) is not bytes:
        raise TypeError(f"a value of type {type(value).__name__}")
    return {"$bytes": b64encode(value).rstrip(b"=").decode()}


class _Tags(dict[int, Callable[..., Any]]):
    """The decoders of tags: links only. Others build objects, or repeat a value without its bytes."""

    def __missing__(self, tag: int) -> Callable[..., Any]:
        raise ValueError(f"the tag {tag}, which is not that of a link")


def _link(value: Any, *_: Any) -> Any:
    if type(value) is not bytes or not value.startswith(b"\0"):
        raise ValueError("a link without a CID")
    return {"$link": libipld.encode_cid(value[1:])}


_TAGS = _Tags({_LINK_TAG: _link})


def _decode_slowly(data: bytes) -> Any:
    return cbor2.loads(data, semantic_decoders=_TAGS, str_errors="replace", max_depth=_MAX_DEPTH)
