"""Fault injection: tests define faults, connections execute them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame, Opcode

FOREVER = None
"""Value of `times`: every connection, until `Faults.clear()`."""


@dataclass(frozen=True)
class Cut:
    """End the TCP connection without a close frame."""

    reset: bool = False
    torn: bool = False


@dataclass(frozen=True)
class CloseFrame:
    """Send a close frame."""

    code: int
    reason: str


@dataclass(frozen=True)
class Stall:
    """Send no more data."""

    pongs: bool
    """Whether pings are still answered."""


@dataclass(frozen=True)
class Inject:
    """Send frames that are not events."""

    data: bytes
    """The serialized frames."""
    payloads: tuple[bytes, ...]


@dataclass(frozen=True)
class Notice:
    """Send a notice of the v2 protocol; after an error the connection is closed, as a server does."""

    name: str
    message: str
    is_error: bool


FaultAction = Cut | CloseFrame | Stall | Inject | Notice


@dataclass(eq=False)
class _Rule:
    """An action, due once a connection has sent `after` frames since it first saw the rule."""

    action: FaultAction
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
class RuleProgress:
    """Progress of one connection toward each rule."""

    first_seen: dict[_Rule, int | None] = field(default_factory=dict)
    """Frames sent when the rule was first seen; None once it was executed."""


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
"""Default payloads of `Faults.garbage()`: `str` as text frames, `bytes` as binary frames."""


class Faults:
    """The faults of one server. Each applies to the next `times` connections, open ones included.

    `after` counts data frames of a connection from the moment the fault is added, or from the
    start of a later connection. `times=None` means every connection until `clear()`.
    A connection that never completes its subscription (a probe) uses up refusals and delays only.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._refusals: list[_Refusal] = []
        self._delays: list[_Delay] = []
        self._injected: deque[bytes] = deque(maxlen=100_000)
        self.epoch = 0
        """Number of `clear()` calls: a stalled connection resumes when it changes."""

    def cut_after(
        self, frames: int = 0, *, reset: bool = False, torn: bool = False, times: int | None = 1
    ) -> None:
        """End the TCP connection without a close frame: FIN, or RST with `reset`; `torn`: within a frame."""
        self._add(Cut(reset, torn), frames, times)

    def close(self, code: int, reason: str = "", *, after: int = 0, times: int | None = 1) -> None:
        """Send a close frame with `code`. Raises ValueError for a code that must not be sent."""
        try:
            Close(code, reason).check()
        except ProtocolError as error:
            raise ValueError(f"a close frame cannot carry the code {code}") from error
        self._add(CloseFrame(code, reason), after, times)

    def stall(self, *, after: int = 0, pongs: bool = True, times: int | None = 1) -> None:
        """Send no more data; without `pongs` nothing at all, like a half-open connection."""
        self._add(Stall(pongs), after, times)

    def garbage(
        self, *payloads: bytes | str, after: int = 0, times: int | None = 1, binary: bool = True
    ) -> None:
        """Send frames that are not events: `str` as text frames, `bytes` as binary ones with `binary`."""
        kind = Opcode.BINARY if binary else Opcode.TEXT
        frames = [
            Frame(Opcode.TEXT, payload.encode()) if isinstance(payload, str) else Frame(kind, payload)
            for payload in payloads or GARBAGE
        ]
        data = b"".join(frame.serialize(mask=False) for frame in frames)
        self._add(Inject(data, tuple(bytes(frame.data) for frame in frames)), after, times)

    def error(self, name: str, message: str = "", *, after: int = 0, times: int | None = 1) -> None:
        """End the stream with an error frame, such as `ConsumerTooSlow`; v1 only closes with 1008."""
        self._add(Notice(name, message, is_error=True), after, times)

    def info(self, name: str, message: str = "", *, after: int = 0, times: int | None = 1) -> None:
        """Send an #info frame, such as `OutdatedCursor`; on v1 nothing."""
        self._add(Notice(name, message, is_error=False), after, times)

    def refuse(self, status: int = 503, reason: str = "", *, times: int | None = 1) -> None:
        """Reject the handshake with an HTTP error; 503 is the answer of a server that is starting."""
        with self._lock:
            self._refusals.append(_Refusal(status, reason, times))

    def delay(self, seconds: float, *, times: int | None = 1) -> None:
        """Delay the response to the handshake by `seconds`; with `math.inf` it never comes."""
        with self._lock:
            self._delays.append(_Delay(seconds, times))

    def clear(self) -> None:
        """Remove all faults; stalled connections resume."""
        with self._lock:
            self._rules.clear()
            self._refusals.clear()
            self._delays.clear()
            self.epoch += 1
        self._wake()

    @property
    def injected(self) -> list[bytes]:
        """Payloads of the garbage that was sent, in order: the expected dead letters."""
        with self._lock:
            return list(self._injected)

    # Called by connections.

    def next_action(self, sent: int, progress: RuleProgress) -> tuple[FaultAction | None, int | None]:
        """Return the action that is due now, and how many more frames may be sent before the next is due."""
        with self._lock:
            limit: int | None = None
            for rule in self._rules:
                since = progress.first_seen.setdefault(rule, sent)
                if since is None:
                    continue
                left = rule.after - (sent - since)
                if left <= 0:
                    self._use_once(rule)
                    progress.first_seen[rule] = None
                    return rule.action, None
                limit = left if limit is None else min(limit, left)
            return None, limit

    def take_refusal(self) -> tuple[int, str] | None:
        """Return status and reason with which to reject a handshake; None to accept it."""
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
        """Return the seconds by which to delay the response to a handshake."""
        with self._lock:
            if not self._delays:
                return 0.0
            delay = self._delays[0]
            if delay.times is not None:
                delay.times -= 1
                if delay.times <= 0:
                    self._delays.pop(0)
            return delay.seconds

    def record_injected(self, payloads: tuple[bytes, ...]) -> None:
        """Record payloads that a connection sends."""
        with self._lock:
            self._injected.extend(payloads)

    def _add(self, action: FaultAction, after: int, times: int | None) -> None:
        with self._lock:
            self._rules.append(_Rule(action, after, times))
        self._wake()

    def _use_once(self, rule: _Rule) -> None:
        if rule.times is not None:
            rule.times -= 1
            if rule.times <= 0:
                self._rules.remove(rule)
