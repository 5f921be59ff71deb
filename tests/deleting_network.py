"""Frames of a network of a few accounts, for tests of deletions."""

from __future__ import annotations

import time
from typing import Any

import orjson

from slurp.events import tid
from slurp.events.identity import event_id
from slurp.events.times import isoformat
from tests.harness import InProcess

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
OTHER = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
POST = "app.bsky.feed.post"
MINUTE = 60_000_000
TOMBSTONE = {"@timestamp", "kind", "did", "uri", "commit", "event", "redacted"}


class Network:
    """Makes the frames of events of one network, each a second after the one before."""

    def __init__(self) -> None:
        # Long enough ago for some thousand events: no server sends events of the future.
        self.now_us = int(time.time() * 1e6) - 180 * MINUTE
        self._cursor = 0

    def commit(
        self, operation: str, rkey: str = "one", did: str = DID, text: str = "", at: int | None = None
    ) -> bytes:
        """Return a commit at a time (Unix microseconds), by default the next second."""
        at = self._tick() if at is None else at
        commit: dict[str, Any] = {
            "rev": tid.from_micros(at),
            "operation": operation,
            "collection": POST,
            "rkey": rkey,
        }
        if operation != "delete":
            commit |= {
                "record": {"$type": POST, "text": text or f"{operation} {rkey} {at}"},
                "cid": "bafyrei",
            }
        return self._frame(did, "commit", commit, at)

    def account(
        self, active: bool, status: str | None = None, did: str = DID, at: int | None = None
    ) -> bytes:
        at = self._tick() if at is None else at
        account = {"active": active, "did": did, "seq": 7, "time": isoformat(at)}
        return self._frame(did, "account", account | ({"status": status} if status else {}), at)

    def identity(self, handle: str, did: str = DID) -> bytes:
        at = self._tick()
        return self._frame(
            did, "identity", {"did": did, "handle": handle, "seq": 8, "time": isoformat(at)}, at
        )

    def _frame(self, did: str, kind: str, inner: dict[str, Any], at: int) -> bytes:
        self._cursor += 1
        return orjson.dumps({"did": did, "time_us": at, "cursor": self._cursor, "kind": kind, kind: inner})

    def _tick(self) -> int:
        self.now_us += 1_000_000
        return self.now_us


def settle(indexer: InProcess) -> None:
    """Apply all that is acknowledged."""
    deadline = time.monotonic() + 60
    while indexer.deletions.step():
        assert time.monotonic() < deadline
    assert not indexer.deletions.waiting


def deleting(indexer: InProcess, *options: str) -> InProcess:
    """Return an indexer like this one with more options."""
    url, folder = indexer.config.es[0], indexer.letters.path.parent
    made = InProcess(url, indexer.index, folder, *options, setup=False)
    made.deletions.load()
    return made


def id_of(frame: bytes) -> str:
    return event_id(orjson.loads(frame))
