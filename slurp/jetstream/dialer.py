"""Open streams: choose the protocol and the dictionary for a host, and handle its rejections."""

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
from slurp.jetstream.connection import Connection, close_connection, connect, describe_error
from slurp.jetstream.resyncs import ResyncTracker
from slurp.jetstream.servers import SILENT_V1_PATH, host_of, status_means_no_v2
from slurp.jetstream.streams import V1Stream, V2Stream
from slurp.jetstream.subscription import Subscription
from slurp.jetstream.zstd_dictionary import Dictionary, DictionaryUnavailable, NoDictionary, fetch_dictionary

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT = 10.0
_ATTEMPTS = 4

# How long it is remembered that a host has no v2 or no dictionary: it may be upgraded a day later.
_MEMORY_SECONDS = 24 * 3600.0


class _Rejection(NamedTuple):
    """An XRPC error in the response to a handshake, which proves that the host speaks v2.

    The name is empty if the response is not an XRPC error.
    """

    name: str
    message: str

    def number(self, after: str) -> int | None:
        """Return the first number that follows the word `after` in the message; None if there is none."""
        found = re.search(rf"{after}\D{{0,24}}(\d{{1,18}})", self.message)
        return int(found[1]) if found else None


class Dialer:
    """Opens streams for one subscription and remembers the capabilities of each host."""

    def __init__(self, config: Config, subscription: Subscription) -> None:
        self._subscription = subscription
        self._protocol = subscription.protocol(config.protocol)
        self._compress = config.compress
        self._ca = config.jetstream_ca
        self._resyncs = ResyncTracker()
        self._only_v1: dict[str, float] = {}
        self._dictionaries: dict[str, Dictionary] = {}
        self._no_dictionary: dict[str, float] = {}

    def connect(self, server: str, cursor: int | None, known: int | None = None) -> V1Stream:
        """Open a stream from `cursor`, or a live one.

        `known` is the sequence number up to which all events were received.

        Raises:
            OSError, WebSocketException: the host cannot be reached, or rejects the connection for now.
            Fatal: the host rejects the request itself, so that retrying is useless.
        """
        if not self._should_try_v2(server):
            return self._connect_v1(server, cursor)
        try:
            return self._connect_v2(server, cursor, known)
        except WebSocketBadStatusException as error:
            if self._protocol == "v2" or not self._falls_back_to_v1(server, error):
                raise
            status = error.status_code
        stream = self._connect_v1(server, cursor)
        # Remembered only after v1 has worked: a gateway in front of a host that is down responds 404 as well.
        if status != 400:
            self._only_v1[server] = time.monotonic() + _MEMORY_SECONDS
        return stream

    def _should_try_v2(self, server: str) -> bool:
        if self._protocol == "auto":
            return time.monotonic() >= self._only_v1.get(server, 0)
        return self._protocol == "v2"

    def _falls_back_to_v1(self, server: str, error: WebSocketBadStatusException) -> bool:
        status = error.status_code
        if not status_means_no_v2(status):
            return False
        host = host_of(server)
        if status == 400:
            log.warning("%s rejects the v2 protocol (%s), reading v1", host, describe_error(error))
        else:
            log.info("%s has no v2 protocol (HTTP %d), reading v1", host, status)
        return True

    def _connect_v1(self, server: str, cursor: int | None) -> V1Stream:
        if self._compress == "on":
            log.warning("--compress on: %s is read with v1, which is not compressed", host_of(server))
        url = self._subscription.url(server, cursor)
        try:
            stream = V1Stream(self._open(url), cursor)
        except WebSocketBadStatusException as error:
            if self._rejects_filter(server, url, error):
                body = (error.resp_body or b"").decode("utf-8", "replace").strip()
                raise self._fatal_rejection(server, f"HTTP 400 {printable(body)}") from None
            raise
        if self._subscription.needs_options_message:
            stream.connection.send(self._subscription.options_message)
        return stream

    def _connect_v2(self, server: str, cursor: int | None, known: int | None) -> V1Stream:
        dictionary = self._dictionary(server)
        attempts = _ATTEMPTS
        while True:
            attempts -= 1
            url = self._subscription.v2_url(server, cursor, dictionary.id if dictionary else None)
            try:
                return V2Stream(self._open(url), cursor, dictionary, self._resyncs)
            except (OSError, WebSocketException) as error:
                # A failing host, or a gateway in front of it, gives no reliable answer about dictionaries.
                self._no_dictionary.pop(server, None)
                if not isinstance(error, WebSocketBadStatusException):
                    raise
                rejection = _parse_rejection(error)
                if rejection.name == "InvalidRequest" and error.status_code == 400:
                    raise self._fatal_rejection(server, f"InvalidRequest: {rejection.message}") from None
                if not attempts:
                    raise
                if rejection.name == "UnknownZstdDictionary" and dictionary is not None:
                    dictionary = self._dictionary(server, rejection)
                elif rejection.name == "CursorTooOld" and cursor is not None:
                    cursor = self._oldest_cursor(server, rejection, cursor, known)
                else:
                    raise

    def _rejects_filter(self, server: str, url: str, error: WebSocketBadStatusException) -> bool:
        """Return whether a 400 on the v1 protocol, whose body is plain text, is about the filter.

        A gateway may respond 400, too. So the host must accept a connection without the filter, and then give
        the same response again.
        """
        if (
            error.status_code != 400
            or not self._subscription.filters
            or self._subscription.needs_options_message
        ):
            return False
        try:
            close_connection(self._open(f"{server}{SILENT_V1_PATH}"))
        except (OSError, WebSocketException):
            return False
        try:
            close_connection(self._open(url))
        except WebSocketBadStatusException as again:
            return again.status_code == 400 and again.resp_body == error.resp_body
        except (OSError, WebSocketException):
            return False
        return False

    def _fatal_rejection(self, server: str, response: str) -> Fatal:
        host, options = host_of(server), " and ".join(self._subscription.filters)
        if not options:
            advice = "use another --jetstream host or --protocol v1"
            return Fatal(f"{host} rejects the request: {response}; {advice}", Exit.USAGE)
        return Fatal(f"{host} rejects the filter: {response}; correct {options}", Exit.USAGE)

    def _open(self, url: str) -> Connection:
        return connect(url, _HANDSHAKE_TIMEOUT, self._ca)

    def _dictionary(self, server: str, rejection: _Rejection | None = None) -> Dictionary | None:
        """Return the dictionary to use with a host, None for an uncompressed stream.

        After a rejection the dictionary is fetched again.
        """
        if self._compress == "off" or (self._compress == "auto" and _is_local(server)):
            return None
        if rejection is None and server in self._dictionaries:
            return self._dictionaries[server]
        if rejection is None and time.monotonic() < self._no_dictionary.get(server, 0):
            return None
        host, level = host_of(server), logging.WARNING if self._compress == "on" else logging.INFO
        self._dictionaries.pop(server, None)
        try:
            found = fetch_dictionary(server, rejection.number("current") if rejection else None, self._ca)
        except DictionaryUnavailable as error:
            log.log(level, "%s: %s, reading plain frames until the next connection", host, error)
            return None
        except NoDictionary as error:
            self._no_dictionary[server] = time.monotonic() + _MEMORY_SECONDS
            log.log(level, "%s: %s, reading plain frames", host, error)
            return None
        log.info("%s: zstd dictionary %d%s", host, found.id, ", fetched again" if rejection else "")
        self._dictionaries[server] = found
        return found

    def _oldest_cursor(self, server: str, rejection: _Rejection, cursor: int, known: int | None) -> int:
        """Return the cursor of the oldest event of a host that no longer has `cursor`."""
        # A time before all events means the beginning, and a server never rejects a time.
        oldest = rejection.number("floor") or FIRST_TIME_CURSOR
        host = host_of(server)
        if known is not None and known + 1 >= oldest:
            log.info(
                "%s begins at cursor %d, which is enough: events up to %d are known", host, oldest, known
            )
        else:
            log.warning(
                "%s no longer has the events after cursor %d, reading from its oldest event, cursor %s (%s)",
                *(host, cursor if known is None else known),
                *("unknown" if oldest == FIRST_TIME_CURSOR else oldest, rejection.message),
            )
        return oldest


def _parse_rejection(error: WebSocketBadStatusException) -> _Rejection:
    try:
        body = orjson.loads(error.resp_body or b"")
        return _Rejection(printable(body["error"]), printable(body.get("message")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Rejection("", "")


def _is_local(server: str) -> bool:
    """Return whether the host is this machine, where compression saves nothing."""
    return is_loopback(urlsplit(server).hostname or "")
