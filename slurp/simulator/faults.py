"""What goes wrong on request: faults that tests order and connections carry out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame, Opcode

FOREVER = None
"""For `times`: every connection, until `Faults.clear()`."""


@dataclass(frozen=True)
class Cut:
    """End the TCP connection without a close frame."""

    reset: bool = False
    torn: bool = False


@dataclass(frozen=True)
class CloseFrame:
    """Say goodbye with a code."""

    code: int
    reason: str


@dataclass(frozen=True)
class Stall:
    """Send no data from here on."""

    pongs: bool


@dataclass(frozen=True)
class Inject:
    """Send frames that are no events."""

    data: bytes
    payloads: tuple[bytes, ...]


@dataclass(frozen=True)
class Say:
    """Send a notice of the v2 wire; after an error hang up as a server does."""

    name: str
    message: str
    is_error: bool


Action = Cut | CloseFrame | Stall | Inject | Say


@dataclass(eq=False)
class _Rule:
    """An action, due once a connection has sent `after` frames since it knew of the rule."""

    action: Action
    after: int
    times: int | None


@dataclass
class _Refusal:
    status: int
    reason: str
    times: int | None


@dataclass
class _Delay:
    seconds: float
    times: int | None


@dataclass
class Progress:
    """How far one connection is with each rule."""

    seen: dict[_Rule, int | None] = field(default_factory=dict)


GARBAGE: tuple[bytes | str, ...] = (
    "this is no JSON",
    '{"did":"did:plc:cut off in the mid',
    "",
    "null",
    "[1,2,3]",
    '"text"',
    "{}",
    '{"did":17,"time_us":"soon","kind":"commit","commit":[]}',
    '{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","time_us":1,"kind":"never heard of"}',
    '{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","time_us":1,"kind":"commit"}',
    b"\x28\xb5\x2f\xfd binary, and no zstd either",
)
"""What `Faults.garbage()` sends when it is told nothing else: text frames, and binary for bytes."""


class Faults:
    """The orders of a test. Each holds for the next `times` connections (or open ones) it meets.

    `after` counts data frames of a connection from the moment the fault is ordered, or from the
    start of a connection that comes later. `times=None` is every connection until `clear()`.
    A connection that never says hello (a probe) uses up refusals and delays, but none of the rest.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._refusals: list[_Refusal] = []
        self._delays: list[_Delay] = []
        self._injected: deque[bytes] = deque(maxlen=100_000)
        self.epoch = 0
        """Counts `clear()`, so that a stalled connection knows when to go on."""

    def cut_after(
        self, frames: int = 0, *, reset: bool = False, torn: bool = False, times: int | None = 1
    ) -> None:
        """Drop the TCP connection without a close frame: FIN, or RST; `torn`: within the next frame."""
        self._order(Cut(reset, torn), frames, times)

    def close(self, code: int, reason: str = "", *, after: int = 0, times: int | None = 1) -> None:
        """Send a close frame with `code`. Raises ValueError for one that may not be sent."""
        try:
            Close(code, reason).check()
        except ProtocolError as error:
            raise ValueError(f"a close frame cannot carry the code {code}") from error
        self._order(CloseFrame(code, reason), after, times)

    def stall(self, *, after: int = 0, pongs: bool = True, times: int | None = 1) -> None:
        """Send no more data; without `pongs` be dead altogether, like a half-open connection."""
        self._order(Stall(pongs), after, times)

    def garbage(
        self, *payloads: bytes | str, after: int = 0, times: int | None = 1, binary: bool = True
    ) -> None:
        """Inject frames that are no events: `str` as text frames, `bytes` as binary unless told."""
        kind = Opcode.BINARY if binary else Opcode.TEXT
        frames = [
            Frame(Opcode.TEXT, payload.encode()) if isinstance(payload, str) else Frame(kind, payload)
            for payload in payloads or GARBAGE
        ]
        data = b"".join(frame.serialize(mask=False) for frame in frames)
        self._order(Inject(data, tuple(bytes(frame.data) for frame in frames)), after, times)

    def error(self, name: str, message: str = "", *, after: int = 0, times: int | None = 1) -> None:
        """End the stream with an error frame, like `ConsumerTooSlow`; v1 just closes with 1008."""
        self._order(Say(name, message, is_error=True), after, times)

    def info(self, name: str, message: str = "", *, after: int = 0, times: int | None = 1) -> None:
        """Send an #info, like `OutdatedCursor`; on v1 nothing."""
        self._order(Say(name, message, is_error=False), after, times)

    def refuse(self, status: int = 503, reason: str = "", *, times: int | None = 1) -> None:
        """Answer the handshake with an HTTP error; 503 is what a booting server says."""
        with self._lock:
            self._refusals.append(_Refusal(status, reason, times))

    def delay(self, seconds: float, *, times: int | None = 1) -> None:
        """Let the handshake wait; `math.inf` never answers."""
        with self._lock:
            self._delays.append(_Delay(seconds, times))

    def clear(self) -> None:
        """Forget all orders; stalled connections go on."""
        with self._lock:
            self._rules.clear()
            self._refusals.clear()
            self._delays.clear()
            self.epoch += 1
        self._wake()

    @property
    def injected(self) -> list[bytes]:
        """Payloads of the garbage that was really sent, in order: the oracle beside `frames`."""
        with self._lock:
            return list(self._injected)

    # What follows is for connections.

    def next_action(self, sent: int, progress: Progress) -> tuple[Action | None, int | None]:
        """An action that is due now, and how many more frames may be sent before the next one is."""
        with self._lock:
            limit: int | None = None
            for rule in self._rules:
                since = progress.seen.setdefault(rule, sent)
                if since is None:
                    continue
                left = rule.after - (sent - since)
                if left <= 0:
                    self._spend(rule)
                    progress.seen[rule] = None
                    return rule.action, None
                limit = left if limit is None else min(limit, left)
            return None, limit

    def take_refusal(self) -> tuple[int, str] | None:
        with self._lock:
            if not self._refusals:
                return None
            refusal = self._refusals[0]
            if refusal.times is not None:
                refusal.times -= 1
                if refusal.times <= 0:
                    self._refusals.pop(0)
            return refusal.status, refusal.reason

    def take_delay(self) -> float:
        with self._lock:
            if not self._delays:
                return 0.0
            delay = self._delays[0]
            if delay.times is not None:
                delay.times -= 1
                if delay.times <= 0:
                    self._delays.pop(0)
            return delay.seconds

    def note_injected(self, payloads: tuple[bytes, ...]) -> None:
        with self._lock:
            self._injected.extend(payloads)

    def _order(self, action: Action, after: int, times: int | None) -> None:
        with self._lock:
            self._rules.append(_Rule(action, after, times))
        self._wake()

    def _spend(self, rule: _Rule) -> None:
        if rule.times is not None:
            rule.times -= 1
            if rule.times <= 0:
                self._rules.remove(rule)
