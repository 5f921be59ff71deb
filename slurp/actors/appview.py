"""A client for the public API of a Bluesky AppView: profiles and posts, 25 a call, without credentials.

https://docs.bsky.app/docs/api/app-bsky-actor-get-profiles and …/app-bsky-feed-get-posts
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
import requests
from urllib3.exceptions import HTTPError

from slurp import __version__
from slurp.proxies import BadProxy, requests_proxies
from slurp.response_body import read_body

Json = dict[str, Any]

# Names in one call.
_PER_CALL = 25
# At most so many calls within so many seconds: a fifth of what the public server allows.
_MAX_CALLS, _WINDOW = 600, 300.0
# Seconds to connect, and between two pieces of a response; for the body as a whole.
_TIMEOUT, _BODY_TIMEOUT = (5.0, 15.0), 30.0
# 25 profiles with descriptions take 50 kB, and posts 200 kB.
_MAX_BYTES = 2_000_000
# Seconds without calls after an error, doubled with each one.
_MIN_PAUSE, _MAX_PAUSE = 2.0, 300.0
# Seconds that a server may ask for.
_MAX_REQUESTED = 900.0
# What was asked is invalid or too long. Another status, as of a proxy, says nothing about an account.
_REJECTED = (400, 414, 431)
_INVALID_HANDLE = "handle.invalid"
# Characters. Longer values do not come from Bluesky.
_MAX_HANDLE, _MAX_NAME, _MAX_DESCRIPTION, _MAX_URL, _MAX_TEXT = 253, 640, 2560, 2000, 3000


class Unavailable(Exception):
    """No calls are possible until a time, in Unix seconds."""

    def __init__(self, reason: str, until: float) -> None:
        super().__init__(reason)
        self.until = until


@dataclass(frozen=True)
class Profile:
    """What an AppView says about an account; None for what it does not."""

    did: str
    handle: str | None = None
    display_name: str | None = None
    description: str | None = None
    avatar_url: str | None = None
    created_at: str | None = None
    followers: int | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Post:
    """A post."""

    uri: str
    text: str
    labels: tuple[str, ...] = ()


class AppView:
    """Calls one AppView. One thread uses it.

    Its answers are not trusted: values of another type are left out, and long ones are cut.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.url = url.rstrip("/")
        self.calls = 0
        """Number of calls."""
        self._clock = clock
        self._session = requests.Session()
        # Without the credentials of ~/.netrc, which are for other programs.
        self._session.trust_env = False
        self._session.headers["User-Agent"] = f"skeetslurper/{__version__}"
        self._called: deque[float] = deque()
        self._pause = 0.0
        self._until = 0.0

    def close(self) -> None:
        self._session.close()

    def profiles(self, dids: Iterable[str]) -> Iterator[dict[str, Profile | None]]:
        """Yield the profiles of accounts, some at a time; None for those that the AppView does not know.

        Raises Unavailable.
        """
        for found, asked in self._get("app.bsky.actor.getProfiles", "actors", "profiles", "did", dids):
            yield {did: None if did not in found else _profile(did, found[did]) for did in asked}

    def posts(self, uris: Iterable[str]) -> Iterator[dict[str, Post | None]]:
        """Yield posts, some at a time; None for those that the AppView does not know.

        Raises Unavailable.
        """
        for found, asked in self._get("app.bsky.feed.getPosts", "uris", "posts", "uri", uris):
            yield {uri: None if uri not in found else _post(uri, found[uri]) for uri in asked}

    def _get(
        self, method: str, parameter: str, items: str, key: str, wanted: Iterable[str]
    ) -> Iterator[tuple[dict[str, Json], Sequence[str]]]:
        rest = sorted(set(wanted))
        parts = [rest[first : first + _PER_CALL] for first in range(0, len(rest), _PER_CALL)]
        while parts:
            part = parts.pop(0)
            answer = self._call(f"{self.url}/xrpc/{method}?{urlencode({parameter: part}, doseq=True)}")
            if answer is None and len(part) > 1:
                # One name that the server rejects fails the whole call.
                middle = len(part) // 2
                parts[:0] = [part[:middle], part[middle:]]
                continue
            listed = [] if answer is None else answer.get(items)
            yield (
                {
                    name: one
                    for one in (listed if isinstance(listed, list) else [])
                    if isinstance(one, dict) and (name := one.get(key)) in part
                },
                part,
            )

    def _call(self, url: str) -> Json | None:
        """Return the answer; None if the server rejects what was asked."""
        self._take()
        try:
            proxies = requests_proxies(self.url)
            with self._session.get(
                url, timeout=_TIMEOUT, allow_redirects=False, stream=True, proxies=proxies
            ) as response:
                status, headers = response.status_code, response.headers
                body = read_body(response.raw, _MAX_BYTES, time.monotonic() + _BODY_TIMEOUT)
            answer = orjson.loads(body) if body else None
        except (OSError, HTTPError, ValueError, BadProxy) as error:
            raise self._failed(type(error).__name__) from None
        if status == 429:
            self._until = self._requested(headers)
            raise Unavailable("too many requests", self._until)
        if status in _REJECTED:
            return None
        if status != 200 or not isinstance(answer, dict):
            raise self._failed(f"HTTP {status}")
        self._pause = 0.0
        return answer

    def _take(self) -> None:
        """Count a call. Raises Unavailable if none is allowed now."""
        now = self._clock()
        while self._called and self._called[0] <= now - _WINDOW:
            self._called.popleft()
        if len(self._called) >= _MAX_CALLS:
            self._until = max(self._until, self._called[0] + _WINDOW)
        # A clock that was set back must not stop the calls.
        if now < self._until <= now + _MAX_REQUESTED:
            raise Unavailable("no calls are allowed now", self._until)
        self._called.append(now)
        self.calls += 1

    def _failed(self, reason: str) -> Unavailable:
        self._pause = min(max(2 * self._pause, _MIN_PAUSE), _MAX_PAUSE)
        self._until = self._clock() + self._pause
        return Unavailable(reason, self._until)

    def _requested(self, headers: Any) -> float:
        """Return the time until which a server that rejects for too many requests asks to wait."""
        now = self._clock()
        times = [now + _MIN_PAUSE]
        for name, start in (("ratelimit-reset", 0.0), ("retry-after", now)):
            text = str(headers.get(name, ""))
            if text.isascii() and text.isdigit():
                times.append(start + int(text[:15]))
        return min(max(times), now + _MAX_REQUESTED)


def _profile(did: str, value: Json) -> Profile:
    handle = value.get("handle")
    followers = value.get("followersCount")
    return Profile(
        did,
        # A part of a handle is another handle.
        None if handle == _INVALID_HANDLE or len(str(handle)) > _MAX_HANDLE else _text(handle, _MAX_HANDLE),
        _text(value.get("displayName"), _MAX_NAME),
        _text(value.get("description"), _MAX_DESCRIPTION),
        _text(value.get("avatar"), _MAX_URL),
        _text(value.get("createdAt"), 64),
        followers if type(followers) is int and 0 <= followers < 2**53 else None,
        _labels(value.get("labels")),
    )


def _post(uri: str, value: Json) -> Post:
    record = value.get("record")
    text = _text(record.get("text"), _MAX_TEXT) if isinstance(record, dict) else None
    return Post(uri, text or "", _labels(value.get("labels")))


def _text(value: Any, length: int) -> str | None:
    """Return a text of at most `length` characters; None for an empty one or another type."""
    return value[:length] or None if isinstance(value, str) else None


def _labels(value: Any) -> tuple[str, ...]:
    found = [one.get("val") for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return tuple(one[:256] for one in found if isinstance(one, str))[:50]
