"""Rows of the archive into frames: the JSON of the same event in the shape of the v1 protocol. Pure.

What the server cannot write as JSON, such as a float of 64 bits, is in the archive, but never on the
WebSocket.
"""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from hashlib import blake2b
from typing import Any

import orjson

from slurp.archive.blocks import Row, RowKind
from slurp.archive.dag_cbor import InvalidCbor, cid_of, to_json
from slurp.events.frames import DIGEST_SIZE, MAX_FRAME_BYTES, UNREADABLE_TYPE, oversized_frame

Json = dict[str, Any]

_OPERATIONS: dict[int, str] = {
    RowKind.CREATE: "create",
    RowKind.UPDATE: "update",
    RowKind.DELETE: "delete",
    RowKind.RESYNC_CREATE: "create",
}
_NAMES: dict[int, str] = {RowKind.IDENTITY: "identity", RowKind.ACCOUNT: "account", RowKind.SYNC: "sync"}


def frame_of(row: Row) -> bytes | None:
    """Return the frame of a row; None for a kind that is not known.

    `parse` of slurp.events.frames accepts it, unless the content of the row is invalid: then that is in it as
    it is, and the frame becomes a dead letter.
    """
    if (name := _NAMES.get(row.kind)) is not None:
        event_of = partial(_status_event, row, name)
    elif (operation := _OPERATIONS.get(row.kind)) is None:
        return None
    elif row.kind == RowKind.DELETE:
        return orjson.dumps(_commit_event(row, operation))
    else:
        event_of = partial(_record_event, row, operation)
    try:
        frame = to_json(row.payload, event_of)
    except InvalidCbor as error:
        frame = _unreadable(row, str(error))
    if len(frame) > MAX_FRAME_BYTES:
        return oversized_frame(len(frame), blake2b(frame, digest_size=DIGEST_SIZE).hexdigest())
    return frame


def _status_event(row: Row, name: str, value: Any) -> Json:
    return {**_envelope(row, name), name: value}


def _record_event(row: Row, operation: str, record: Any) -> Json:
    event = _commit_event(row, operation)
    # In the order of the server's frames, which the fast path expects.
    event["commit"]["record"] = record
    event["commit"]["cid"] = cid_of(row.payload)
    return event


def _commit_event(row: Row, operation: str) -> Json:
    commit: Json = {"rev": row.rev, "operation": operation, "collection": row.collection, "rkey": row.rkey}
    if row.kind == RowKind.RESYNC_CREATE:
        commit["resync"] = True
    return {**_envelope(row, "commit"), "commit": commit}


def _envelope(row: Row, kind: str) -> Json:
    return {"did": row.did, "time_us": row.time_us, "cursor": row.seq, "kind": kind}


def _unreadable(row: Row, reason: str) -> bytes:
    content = row._asdict() | {"payload": b64encode(row.payload).decode()}
    return orjson.dumps({"$type": UNREADABLE_TYPE, "reason": reason, "row": content})
