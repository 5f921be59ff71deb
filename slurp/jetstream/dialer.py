"""Connecting: which wire a host is asked for, with which dictionary, and what to do when it refuses."""

from __future__ import annotations

import logging
import re
import time
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson
from websocket import WebSocketBadStatusException, WebSocketException

from slurp.addresses import is_loopback
from slurp.config import Config
from slurp.errors import Exit, Fatal
from slurp.events.frames import printable
from slurp.events.position import FIRST_TIME_CURSOR
from slurp.jetstream.connection import Connection, connect
from slurp.jetstream.resyncs import Resyncs
from slurp.jetstream.servers import SILENT_V1, hang_up, has_no_v2, host_of, why
from slurp.jetstream.streams import V1Stream, V2Stream
from slurp.jetstream.subscription import Subscription
from slurp.jetstream.zstd_dictionary import Dictionary, DictionaryUnavailable, NoDictionary, fetch

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT = 10.0
_TRIES = 4

# A host that has only v1, or no dictionary, may have been upgraded a day later.
_REMEMBERED = 24 * 3600.0


class _Refusal(NamedTuple):
    """An XRPC error, which says that the host does speak v2. The name is empty where it is none."""

    name: str
    message: str

    def number(self, after: str) -> int | None:
        found = re.search(rf"{after}\D{{0,24}}(\d{{1,18}})", self.message)
        return int(found[1]) if found else None


class Dialer:
    """Opens lines for one subscription, and remembers what it has learned about each host."""

    def __init__(self, config: Config, subscription: Subscription) -> None:
        self._subscription = subscription
        self._protocol = subscription.protocol(config.protocol)
        self._compress = config.compress
        self._ca = config.jetstream_ca
        self._resyncs = Resyncs()
        self._only_v1: dict[str, float] = {}
        self._dictionaries: dict[str, Dictionary] = {}
        self._no_dictionary: dict[str, float] = {}

    def connect(self, server: str, cursor: int | None, known: int | None = None) -> V1Stream:
        """Open a line from `cursor`, or live. `known` is the sequence number up to which nothing is missing.

        Raises:
            OSError or what `websocket` raises: the host can't be reached, or rejects for now.
            Fatal: the host rejects the request itself, so that trying again is of no use.
        """
        if not self._asks_for_v2(server):
            return self._connect_v1(server, cursor)
        try:
            return self._connect_v2(server, cursor, known)
        except WebSocketBadStatusException as error:
            if self._protocol == "v2" or not self._goes_back_to_v1(server, error):
                raise
            status = error.status_code
        line = self._connect_v1(server, cursor)
        # Remembered once v1 works: a gateway before a host that is down answers 404 as well.
        if status != 400:
            self._only_v1[server] = time.monotonic() + _REMEMBERED
        return line

    def _asks_for_v2(self, server: str) -> bool:
        if self._protocol == "auto":
            return time.monotonic() >= self._only_v1.get(server, 0)
        return self._protocol == "v2"

    def _goes_back_to_v1(self, server: str, error: WebSocketBadStatusException) -> bool:
        status = error.status_code
        if not has_no_v2(status):
            return False
        host = host_of(server)
        if status == 400:
            log.warning("%s refuses the v2 wire (%s), reading v1", host, why(error))
        else:
            log.info("%s has no v2 wire (HTTP %d), reading v1", host, status)
        return True

    def _connect_v1(self, server: str, cursor: int | None) -> V1Stream:
        if self._compress == "on":
            log.warning("--compress on: %s is read by the v1 wire, which is plain", host_of(server))
        url = self._subscription.url(server, cursor)
        try:
            line = V1Stream(self._open(url), cursor)
        except WebSocketBadStatusException as error:
            if self._dislikes_the_filter(server, url, error):
                body = (error.resp_body or b"").decode("utf-8", "replace").strip()
                raise self._rejected(server, f"HTTP 400 {printable(body)}") from None
            raise
        if self._subscription.needs_hello:
            line.connection.send(self._subscription.hello)
        return line

    def _connect_v2(self, server: str, cursor: int | None, known: int | None) -> V1Stream:
        dictionary = self._dictionary(server)
        tries = _TRIES
        while True:
            tries -= 1
            url = self._subscription.v2_url(server, cursor, dictionary.id if dictionary else None)
            try:
                return V2Stream(self._open(url), cursor, dictionary, self._resyncs)
            except (OSError, WebSocketException) as error:
                # What a host in trouble, or a gateway before it, said of dictionaries counts for nothing.
                self._no_dictionary.pop(server, None)
                if not isinstance(error, WebSocketBadStatusException):
                    raise
                refusal = _refusal(error)
                if refusal.name == "InvalidRequest" and error.status_code == 400:
                    raise self._rejected(server, f"InvalidRequest: {refusal.message}") from None
                if not tries:
                    raise
                if refusal.name == "UnknownZstdDictionary" and dictionary is not None:
                    dictionary = self._dictionary(server, refusal)
                elif refusal.name == "CursorTooOld" and cursor is not None:
                    cursor = self._floor(server, refusal, cursor, known)
                else:
                    raise

    def _dislikes_the_filter(self, server: str, url: str, error: WebSocketBadStatusException) -> bool:
        """Whether a 400 of the v1 wire, which is plain text, is about the filter.

        A gateway may answer 400, too. So the host must accept a connection without the filter, and then give
        the same answer again.
        """
        if error.status_code != 400 or not self._subscription.filters or self._subscription.needs_hello:
            return False
        try:
            hang_up(self._open(f"{server}{SILENT_V1}"))
        except (OSError, WebSocketException):
            return False
        try:
            hang_up(self._open(url))
        except WebSocketBadStatusException as again:
            return again.status_code == 400 and again.resp_body == error.resp_body
        except (OSError, WebSocketException):
            return False
        return False

    def _rejected(self, server: str, answer: str) -> Fatal:
        host, options = host_of(server), " and ".join(self._subscription.filters)
        if not options:
            advice = "use another --jetstream host or --protocol v1"
            return Fatal(f"{host} rejects the request: {answer}; {advice}", Exit.USAGE)
        return Fatal(f"{host} rejects the filter: {answer}; correct {options}", Exit.USAGE)

    def _open(self, url: str) -> Connection:
        return connect(url, _HANDSHAKE_TIMEOUT, self._ca)

    def _dictionary(self, server: str, refusal: _Refusal | None = None) -> Dictionary | None:
        """Return the dictionary to use with a host, None for a plain line; fetch it again after a refusal."""
        if self._compress == "off" or (self._compress == "auto" and _is_near(server)):
            return None
        if refusal is None and server in self._dictionaries:
            return self._dictionaries[server]
        if refusal is None and time.monotonic() < self._no_dictionary.get(server, 0):
            return None
        host, level = host_of(server), logging.WARNING if self._compress == "on" else logging.INFO
        self._dictionaries.pop(server, None)
        try:
            found = fetch(server, refusal.number("current") if refusal else None, self._ca)
        except DictionaryUnavailable as error:
            log.log(level, "%s: %s, reading plain frames until the next connection", host, error)
            return None
        except NoDictionary as error:
            self._no_dictionary[server] = time.monotonic() + _REMEMBERED
            log.log(level, "%s: %s, reading plain frames", host, error)
            return None
        log.info("%s: zstd dictionary %d%s", host, found.id, ", fetched again" if refusal else "")
        self._dictionaries[server] = found
        return found

    def _floor(self, server: str, refusal: _Refusal, cursor: int, known: int | None) -> int:
        """Where a host that no longer has `cursor` begins."""
        # A time before all times: from the beginning, and a server never refuses a time.
        floor = refusal.number("floor") or FIRST_TIME_CURSOR
        host = host_of(server)
        if known is not None and known + 1 >= floor:
            log.info("%s goes back to cursor %d, which is enough: we have come to %d", host, floor, known)
        else:
            log.warning(
                "%s no longer has what came after cursor %d, reading from its floor, %s (%s)",
                *(host, cursor if known is None else known),
                *("which it does not tell" if floor == FIRST_TIME_CURSOR else floor, refusal.message),
            )
        return floor


def _refusal(error: WebSocketBadStatusException) -> _Refusal:
    try:
        body = orjson.loads(error.resp_body or b"")
        return _Refusal(printable(body["error"]), printable(body.get("message")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Refusal("", "")


def _is_near(server: str) -> bool:
    """Whether bytes to this host cost nothing."""
    return is_loopback(urlsplit(server).hostname or "")
