"""A client for the archive of one Jetstream server: plans, files and blocks.

The API key goes to the three endpoints that may want one, of the server it was configured for, and nowhere
else: redirects are not followed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson
import requests
from urllib3.exceptions import HTTPError

from slurp import __version__
from slurp.addresses import http_url
from slurp.archive.plans import Filter, InvalidPlan, Page, SegmentFile, files_of, page_of
from slurp.archive.segments import MAX_SEGMENT_BYTES
from slurp.events.frames import printable
from slurp.proxies import BadProxy, requests_proxies
from slurp.response_body import read_body

T = TypeVar("T")

_METHODS = "/xrpc/network.bsky.jetstream."
_PLAN, _SEGMENT, _BLOCK, _LIST = "planSnapshot", "getSegment", "getBlock", "listSegments"
_WITH_KEY = frozenset((_PLAN, _SEGMENT, _BLOCK))
# Seconds to connect, and between two pieces of a response.
_TIMEOUT = (10.0, 60.0)
# Seconds for the body of a plan, a list or a block.
_BODY_TIMEOUT = 300.0
# A plan of 100,000 entries has 15 MB.
_MAX_PLAN_BYTES = 64 * 2**20
_MAX_ERROR_BYTES = 65_536
# Compressed; 150 kB on real servers.
_MAX_BLOCK_BYTES = 16 * 2**20
_STRONG_TAG = re.compile(r'"[!#-~]{1,100}"')
_PIECE = 1 << 18
_LIST_LIMIT = 1000
# Statuses after which the same request may succeed later.
_LATER = frozenset((408, 425, 429, *range(500, 600))) - {501}
_UNAUTHORIZED = (401, 403)
_ABSENT = (404, 405, 501)
_RANGE_NOT_SATISFIABLE = 416
# Seconds that a server may ask to wait.
_MAX_REQUESTED = 3600.0


class ArchiveError(Exception):
    """The archive cannot be read; the text is the reason."""


class Unavailable(ArchiveError):
    """The same request may succeed later, at the earliest after `wait` seconds if the server says so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class KeyRequired(ArchiveError):
    """The server wants an API key, or another one."""


class NotFound(ArchiveError):
    """The server has no such file or block, or no archive."""


class Client:
    """Reads the archive of one server. One thread uses it.

    Attributes:
        received: bytes of files and blocks so far.
    """

    def __init__(self, server: str, key: str = "", ca: Path | None = None) -> None:
        """`server` is the URL of its WebSocket, `ws(s)://…`."""
        self._url = http_url(server, _METHODS)
        self._key = key
        self._session = requests.Session()
        # Without the credentials of ~/.netrc, which are for other programs.
        self._session.trust_env = False
        self._session.headers["User-Agent"] = f"skeetslurper/{__version__}"
        self._session.verify = str(ca) if ca else True
        self.received = 0

    def close(self) -> None:
        self._session.close()

    def plan(self, after: int, before: int | None = None, filter: Filter | None = None) -> Page:
        """Return the first page of a plan of the events with a seq above `after`, up to `before`.

        Raises ArchiveError.
        """
        body: dict[str, Any] = {"afterSeq": after, **(filter or Filter()).body()}
        if before is not None:
            body["beforeSeq"] = before
        return self._parsed(page_of, _PLAN, method="POST", json=body)

    def files(self) -> Iterator[SegmentFile]:
        """Yield all sealed files, in the order of their events. Raises ArchiveError."""
        cursor, last = "", -1
        while True:
            params = {"limit": str(_LIST_LIMIT), **({"cursor": cursor} if cursor else {})}
            files, cursor = self._parsed(files_of, _LIST, params=params)
            for file in files:
                if file.max_seq <= last:
                    raise ArchiveError("the list of files is not in their order, or does not end")
                last = file.max_seq
                yield file
            if not (cursor and files):
                return

    def block(self, name: str, number: int) -> bytes:
        """Return a block as a zstd frame. Raises ArchiveError."""
        params = {"segment": name, "blockIndex": str(number)}
        with self._response(_BLOCK, params=params) as response:
            body = read_body(response.raw, _MAX_BLOCK_BYTES, time.monotonic() + _BODY_TIMEOUT)
        self.received += len(body)
        return body

    def download(
        self,
        name: str,
        path: Path,
        on_bytes: Callable[[int], None] = lambda count: None,
        may_continue: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write a file to `path`, its ETag beside it. After Unavailable, another call resumes the download.

        `on_bytes` gets the number of bytes of each piece; the download ends when `may_continue` says no.
        Raises ArchiveError, and OSError if it cannot be written.
        """
        tag_path = path.with_suffix(".etag")
        have, tag = path.stat().st_size if path.exists() else 0, ""
        if have and tag_path.exists():
            tag = tag_path.read_text(encoding="ascii")
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if tag else {}
        accepted = (200, 206, _RANGE_NOT_SATISFIABLE) if tag else (200,)
        with self._response(_SEGMENT, accepted=accepted, params={"name": name}, headers=headers) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE:
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return  # nothing is missing
                path.unlink()
                raise Unavailable(f"{name} is shorter than what was received; it is read again")
            is_rest = response.status_code == 206 and response.headers.get("ETag") == tag
            if response.status_code == 206 and not _begins_at(response, have):
                raise ArchiveError(f"{name}: the server sent another range than requested")
            total = _length(response) + (have if is_rest else 0)
            if total > MAX_SEGMENT_BYTES:
                raise ArchiveError(f"{name} has {total:,} bytes, more than {MAX_SEGMENT_BYTES:,}")
            if not is_rest:
                have = 0
                # Before the first byte: a file of two versions has neither checksum.
                path.unlink(missing_ok=True)
                tag_path.write_text(_strong(response.headers.get("ETag", "")), encoding="ascii")
            with path.open("ab") as file, suppress(HTTPError):
                while piece := response.raw.read1(_PIECE):
                    if have + len(piece) > total:
                        raise ArchiveError(f"{name} is longer than the server said")
                    file.write(piece)
                    have += len(piece)
                    self.received += len(piece)
                    on_bytes(len(piece))
                    if not may_continue():
                        raise Unavailable("stopped")
        if have < total:
            raise Unavailable(f"{name}: the connection ended after {have:,} of {total:,} bytes")

    def _parsed(self, parse: Callable[[Any], T], endpoint: str, **options: Any) -> T:
        with self._response(endpoint, **options) as response:
            body = read_body(response.raw, _MAX_PLAN_BYTES, time.monotonic() + _BODY_TIMEOUT)
        try:
            return parse(orjson.loads(body))
        except (orjson.JSONDecodeError, InvalidPlan) as error:
            raise ArchiveError(f"{endpoint}: not a valid response: {error}") from None

    @contextmanager
    def _response(
        self, endpoint: str, method: str = "GET", accepted: Collection[int] = (200,), **options: Any
    ) -> Iterator[requests.Response]:
        """Yield a response with one of the `accepted` statuses, without its body. Raises ArchiveError."""
        url = self._url + endpoint
        headers = {"Accept-Encoding": "identity", **options.pop("headers", {})}
        if self._key and endpoint in _WITH_KEY:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with self._session.request(
                method,
                url,
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
                proxies=requests_proxies(url),
                **options,
            ) as response:
                if response.status_code not in accepted:
                    raise self._failure(endpoint, response)
                yield response
        except (requests.RequestException, HTTPError, BadProxy) as error:
            # Without the text: it may have the URL of a proxy with its password.
            raise Unavailable(f"{endpoint}: {type(error).__name__}") from None

    def _failure(self, endpoint: str, response: requests.Response) -> ArchiveError:
        status = response.status_code
        reason = f"{endpoint}: HTTP {status}{_message(response)}"
        if status in _UNAUTHORIZED:
            return KeyRequired(reason)
        if status in _LATER:
            return Unavailable(reason, _requested_wait(response))
        return NotFound(reason) if status in _ABSENT else ArchiveError(reason)


def _message(response: requests.Response) -> str:
    """Return the server's description of an error, '' without one."""
    body = read_body(response.raw, _MAX_ERROR_BYTES, time.monotonic() + _BODY_TIMEOUT)
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(answer, dict):
        return ""
    texts = [printable(answer.get(name)) for name in ("error", "message")]
    return "".join(f", {text}" for text in texts if text)


def _requested_wait(response: requests.Response) -> float:
    """Return the seconds that a server asks to wait, 0 if it does not say."""
    waits = [0.0]
    for name in ("Retry-After", "RateLimit-Reset"):
        text = response.headers.get(name, "").strip()
        if text.isascii() and text.isdigit():
            waits.append(float(text[:15]))
        elif (until := _http_date(text)) is not None:
            waits.append(until - time.time())
    return min(max(waits), _MAX_REQUESTED)


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _length(response: requests.Response) -> int:
    text = response.headers.get("Content-Length", "")
    if not (text.isascii() and text.isdigit()):
        raise ArchiveError(f"{_SEGMENT}: a response without its length")
    return int(text[:15])


def _begins_at(response: requests.Response, offset: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _strong(tag: str) -> str:
    """Return an ETag that names the bytes of a file; '' for a weak or invalid one."""
    return tag if _STRONG_TAG.fullmatch(tag) else ""
