"""Timestamp identifiers (TIDs), the record and revision keys of the AT Protocol.

A TID is 13 characters of base32-sortable: one zero bit, 53 bits of Unix
microseconds, 10 bits of clock identifier. Source: https://atproto.com/specs/tid
"""

from __future__ import annotations

ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"

_PYTHON_DIGITS = "0123456789abcdefghijklmnopqrstuv"
# Characters outside the alphabet become one that int() rejects.
_TO_PYTHON = bytes(
    ord(_PYTHON_DIGITS[ALPHABET.index(chr(code))]) if chr(code) in ALPHABET else ord("!")
    for code in range(256)
)
_MAX_MICROS = (1 << 53) - 1


def to_micros(value: str) -> int | None:
    """Return the Unix microseconds of a TID; None if `value` is not one."""
    if len(value) != 13 or not value.isascii():
        return None
    try:
        number = int(value.encode().translate(_TO_PYTHON), 32)
    except ValueError:
        return None
    return None if number >> 64 else number >> 10


def from_micros(micros: int, clock: int = 0) -> str:
    """Return the TID of `micros` (Unix microseconds) and `clock` (0 to 1023).

    Raises ValueError for a time beyond 53 bits.
    """
    if not 0 <= micros <= _MAX_MICROS:
        raise ValueError(f"{micros} µs do not fit into the 53 bits of a TID")
    number = micros << 10 | clock & 1023
    return "".join(ALPHABET[number >> shift & 31] for shift in range(60, -1, -5))
