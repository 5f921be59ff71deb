"""The endpoints of the server: subscribe (v1), subscribeEvents (v2), getZstdDictionary, archive and AppView.

No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slurp.simulator import handshake, protocol_v1, protocol_v2
from slurp.simulator.appview import SimulatedAppView
from slurp.simulator.archive import SimulatedArchive
from slurp.simulator.dictionaries import CurrentDictionary
from slurp.simulator.encoders import V1Encoder, V2Encoder
from slurp.simulator.event_store import EventStore
from slurp.simulator.filters import FIRST_TIME_CURSOR, BadRequest, Filter, last_value
from slurp.simulator.handshake import HandshakeRejected, RequestHead
from slurp.simulator.options import ServerOptions

Params = Mapping[str, list[str]]


@dataclass(frozen=True)
class AcceptedSubscription:
    """An accepted handshake: the response to send, and what the stream contains."""

    response: bytes
    encoder: V1Encoder | V2Encoder
    cursor: int | None
    filter: Filter | None
    """None until the client sends an options_update (requireHello)."""
    notice: bytes = b""
    """A frame to send before the events."""


@dataclass(frozen=True)
class Endpoints:
    """What a server offers to its clients, and how it answers their requests."""

    store: EventStore
    options: ServerOptions
    protocols: tuple[str, ...]
    """`v1`, `v2` or both."""
    dictionary: CurrentDictionary
    appview: SimulatedAppView
    archive: SimulatedArchive
    now_us: Callable[[], int]

    def response(self, head: RequestHead, path: str, params: Params, body: bytes) -> bytes | None:
        """Return the response to a request that is no subscription; None for another path.

        Raises HandshakeRejected.
        """
        if self.archive.answers(path) and "v2" in self.protocols:
            return self.archive.answer(head, path, params, body)
        if self.appview.answers(path):
            return self.appview.answer(path, params)
        if path == protocol_v2.DICTIONARY_PATH and "v2" in self.protocols:
            return self._dictionary_response(params)
        return None

    def _dictionary_response(self, params: Params) -> bytes:
        """Return the response with the current dictionary. Raises HandshakeRejected for another id."""
        dictionary = self.dictionary.create()
        requested = last_value(params, "id")
        if requested not in (None, str(dictionary.id)):
            text = f"no dictionary with id {requested[:20]}; current dictionary id is {dictionary.id}"
            raise HandshakeRejected(404, protocol_v2.error_body("DictionaryNotFound", text))
        return handshake.file_response(dictionary.data, {"X-Zstd-Dictionary-Id": str(dictionary.id)})

    def subscribe(self, head: RequestHead, path: str, params: Params) -> AcceptedSubscription:
        """Accept a subscription on either protocol. Raises HandshakeRejected."""
        if path == protocol_v1.PATH and "v1" in self.protocols:
            return self._subscribe_v1(head, params)
        if path == protocol_v2.PATH and "v2" in self.protocols:
            return self._subscribe_v2(head, params)
        raise HandshakeRejected(404, "not found")

    def start_position(self, cursor: int | None) -> int:
        """Return the position in the store at which a subscription with `cursor` starts now."""
        now = self.now_us()
        if cursor is not None and FIRST_TIME_CURSOR <= cursor <= now:
            cursor = min(cursor, now - round(self.options.active_segment * 1e6))
        return self.store.find(cursor, now, self._lookback_us)

    def _subscribe_v1(self, head: RequestHead, params: Params) -> AcceptedSubscription:
        try:
            subscription = protocol_v1.parse_subscription(params)
        except BadRequest as error:
            raise HandshakeRejected(400, str(error)) from error
        return AcceptedSubscription(
            response=handshake.accept(head),
            encoder=V1Encoder(),
            cursor=subscription.cursor,
            filter=None if subscription.require_hello else subscription.filter,
        )

    def _subscribe_v2(self, head: RequestHead, params: Params) -> AcceptedSubscription:
        try:
            subscription = protocol_v2.Subscription(params)
        except BadRequest as error:
            raise HandshakeRejected(400, protocol_v2.error_body("InvalidRequest", str(error))) from error
        dictionary = None
        if (requested := subscription.dictionary) is not None:
            if requested != (current := self.dictionary.id):
                text = f"unknown zstd dictionary id {requested}; current dictionary id is {current}"
                raise HandshakeRejected(400, protocol_v2.error_body("UnknownZstdDictionary", text))
            dictionary = self.dictionary.create()
        warning = self._check_cursor(subscription.cursor)
        response = handshake.accept(head)
        encoder = V2Encoder(subscription.kinds, dictionary)
        notice = encoder.notice("OutdatedCursor", warning, is_error=False) if warning else b""
        return AcceptedSubscription(response, encoder, subscription.cursor, subscription.filter, notice)

    def _check_cursor(self, cursor: int | None) -> str:
        """Return a warning for a time cursor below the lookback floor, else an empty string.

        Raises HandshakeRejected for a sequence number below the floor.
        """
        floor = self.store.floor(self.now_us(), self._lookback_us)
        if cursor is None or floor is None:
            return ""
        seq, time_us = floor
        if cursor >= FIRST_TIME_CURSOR:
            return f"cursor below the lookback floor, resumed from seq {seq}" if cursor < time_us else ""
        if cursor < seq:
            text = f"cursor too old: cursor {cursor} below lookback floor {seq}"
            raise HandshakeRejected(400, protocol_v2.error_body("CursorTooOld", text))
        return ""

    @property
    def _lookback_us(self) -> int:
        return round(self.options.lookback * 1e6)
