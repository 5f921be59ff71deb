"""The answers of a simulated AppView about the accounts of the network, and about given posts. No I/O."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from zlib import crc32

from slurp.events.frames import account_of
from slurp.simulator import sample_texts
from slurp.simulator.accounts import Account
from slurp.simulator.handshake import HandshakeRejected, file_response

Json = dict[str, Any]

PROFILES = "/xrpc/app.bsky.actor.getProfiles"
POSTS = "/xrpc/app.bsky.feed.getPosts"
_PER_CALL = 25
_INVALID = '{"error":"InvalidRequest","message":"Error: actor must be a valid did or a handle"}'


class SimulatedAppView:
    """Answers calls for profiles and posts, as a server without credentials does.

    Attributes:
        posts: texts of posts by URI, besides those of the accounts of the network.
        removed: accounts that it does not know.
        invalid: accounts and posts for which a call is rejected as a whole.
        failures: the next calls are answered with these: HTTP status, headers and body.
        calls: the names of each call so far, with its path.
    """

    def __init__(self, accounts: Callable[[], Iterable[Account]]) -> None:
        """`accounts` returns those of the network."""
        self.posts: dict[str, str] = {}
        self.removed: set[str] = set()
        self.invalid: set[str] = set()
        self.failures: deque[tuple[int, dict[str, str], bytes]] = deque()
        self.calls: list[tuple[str, list[str]]] = []
        self._accounts = accounts
        self._known: dict[str, Account] = {}
        self._lock = threading.Lock()

    def answers(self, path: str) -> bool:
        """Return whether this path belongs to the AppView."""
        return path in (PROFILES, POSTS)

    def answer(self, path: str, params: Mapping[str, list[str]]) -> bytes:
        """Return the response to a call. Raises HandshakeRejected if it is rejected."""
        names = params.get("actors" if path == PROFILES else "uris", [])
        with self._lock:
            self.calls.append((path, names))
            failure = self.failures.popleft() if self.failures else None
            known = {did: account for did in names if (account := self._account(did)) is not None}
        if failure is not None:
            status, headers, body = failure
            return file_response(body, headers, status)
        if not 0 < len(names) <= _PER_CALL or self.invalid.intersection(names):
            raise HandshakeRejected(400, _INVALID)
        if path == PROFILES:
            found = [_profile(account) for did, account in known.items() if did not in self.removed]
            answer = {"profiles": found}
        else:
            answer = {"posts": [_post(uri, text) for uri in names if (text := self._text(uri)) is not None]}
        return file_response(json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _text(self, uri: str) -> str | None:
        """Return the text of a post; an invented one for an account of the network."""
        if uri in self.posts:
            return self.posts[uri]
        account = self._account(account_of(uri))
        if account is None or account.did in self.removed:
            return None
        _, sentences, topics = sample_texts.LANGUAGES[account.lang]
        number = crc32(uri.encode())
        return sentences[number % len(sentences)].format(topics[number // 7 % len(topics)])

    def _account(self, did: str) -> Account | None:
        if did not in self._known:
            self._known = {account.did: account for account in self._accounts()}
        return self._known.get(did)


def _profile(account: Account) -> Json:
    return {
        "did": account.did,
        "handle": account.handle,
        "displayName": account.name,
        "description": f"{account.name} writes in {account.lang}.",
        "avatar": f"https://cdn.example.com/avatar/{account.handle}.jpg",
        "createdAt": "2024-11-28T00:00:00.000Z",
        "followersCount": account.clock,
        "labels": [],
    }


def _post(uri: str, text: str) -> Json:
    return {
        "uri": uri,
        "cid": "bafyrei",
        "author": {"did": account_of(uri), "handle": "handle.invalid"},
        "record": {"$type": "app.bsky.feed.post", "text": text, "createdAt": "2024-11-28T00:00:00.000Z"},
        "labels": [],
        "indexedAt": "2024-11-28T00:00:00.000Z",
    }
