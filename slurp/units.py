"""Durations and sizes in text form: `30s`, `36h`, `64MB`."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_NUMBER_AND_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_duration(text: str) -> float:
    """Return the seconds of `500ms`, `30s`, `5m`, `36h`, `30d` or `2w`.

    Raises ValueError for anything else, also for a number without a unit, which would be ambiguous.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None or match[2] not in _SECONDS:
        raise ValueError(f"invalid duration {text!r} (use 30s, 5m, 36h or 30d)")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes of `64MB` (10^6), `64MiB` (2^20) or a plain number of bytes.

    Raises ValueError for anything else.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None or match[2].upper() not in _BYTES:
        raise ValueError(f"invalid size {text!r} (use 500kB, 64MB, 512MiB or 1GB)")
    return int(float(match[1]) * _BYTES[match[2].upper()])


def format_duration(seconds: float) -> str:
    """Return a duration as short text with at most two units: `0.4s`, `12s`, `3m20s`, `1d12h`."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 10:
        return f"{sign}{seconds:.1f}s"
    whole = round(seconds)
    parts = [(whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while parts and parts[0][0] == 0:
        parts.pop(0)
    return sign + "".join(f"{number}{unit}" for number, unit in parts[:2] if number)


def format_size(size: float) -> str:
    """Return a size in bytes as short text: `512 bytes`, `300 MB`, `38.2 GB`."""
    if size < 10**6:
        return f"{size:,.0f} bytes"
    return f"{size / 10**6:,.0f} MB" if size < 10**9 else f"{size / 10**9:,.1f} GB"
