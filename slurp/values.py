"""Texts that people write as values of options, checked and made of use. ValueError says what is wrong."""

from __future__ import annotations

import os
import re
import shlex
import ssl
import stat
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from slurp import addresses
from slurp.addresses import Address, parse_address
from slurp.events.position import FIRST_TIME_CURSOR, LIVE
from slurp.units import parse_duration, parse_size

STATE_INDICES = ("skeetslurper-state", "skeetslurper-stats", "skeetslurper-drift")

_NSID = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*(\.[a-zA-Z0-9-]+)*(\.[a-zA-Z][a-zA-Z0-9]*|\.\*)").fullmatch
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]+").fullmatch
_INDEX = re.compile(r"[a-z0-9][a-z0-9_.-]{0,199}").fullmatch
_WORKER = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_SPACE = re.compile(r"[a-z0-9_-]+").fullmatch
# What name services take, and Docker makes up: letters, digits, dashes and underscores between dots.
_HOST = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.IGNORECASE | re.ASCII
).fullmatch
_MAX_HOST = 253
# RFC 3986.
_PATH = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*").fullmatch
# Base64, which those of Elastic's cloud have a prefix to.
_API_KEY = re.compile(r"[A-Za-z0-9+/=_-]*").fullmatch
_MIN_RETENTION_DAYS = 3
_MIN_DISK = 100 * 10**6
_MAX_COLLECTIONS, _MAX_DIDS = 100, 10_000


def at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise ValueError(f"{text!r} is no whole number of {least} or more")
        return int(text)

    return convert


def parse_start(text: str) -> int:
    """A cursor for `live` (LIVE), a duration back from now, a time (UTC unless it says else), or a cursor."""
    if text == "live":
        return LIVE
    if text.isascii() and text.isdigit():
        if int(text) > time.time() * 1e6:
            raise ValueError(f"{text!r} lies in the future")
        return int(text)
    now = datetime.now(UTC)
    try:
        return max(FIRST_TIME_CURSOR, int((now.timestamp() - parse_duration(text)) * 1e6))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no start; write live, a duration like 2h, a time like 2026-11-23T12:00 or a cursor"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now:
        raise ValueError(f"{text!r} lies in the future")
    # Earlier times would be taken for sequence numbers, and no server goes back so far.
    return max(FIRST_TIME_CURSOR, int(moment.timestamp() * 1e6))


def parse_replicas(text: str) -> int | None:
    """A number, or None for `auto`."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text!r} is no number of replicas; write auto, 0, 1, …")
    return int(text)


def parse_retention(text: str) -> int | None:
    """Whole days, or None for `forever`."""
    if text == "forever":
        return None
    days = parse_duration(text) / 86_400
    if days < _MIN_RETENTION_DAYS or days != int(days):
        raise ValueError(
            f"{text!r} is no retention; write whole days, {_MIN_RETENTION_DAYS}d or more, or forever"
        )
    return int(days)


def parse_max_disk(text: str) -> int:
    """Bytes, or 0 for `off`."""
    if text == "off":
        return 0
    size = parse_size(text)
    if size < _MIN_DISK:
        raise ValueError(f"{text!r} is too small for --max-disk; write 100MB or more, like 50GB, or off")
    return size


def jetstream_url(text: str) -> str:
    """`ws(s)://host[:port][/path]` without a trailing slash; a bare host is wss."""
    if "://" not in text:
        text = f"wss://{text}"
    url = _split(text, "--jetstream")
    if url.scheme not in ("ws", "wss") or url.query:
        raise ValueError(f"--jetstream: {_shown(text)!r} is no ws:// or wss:// URL of a server")
    path = url.path.rstrip("/").removesuffix("/subscribe")
    path = path.removesuffix("/xrpc/network.bsky.jetstream.subscribeEvents")
    return urlunsplit((url.scheme, _netloc(url), path, "", ""))


def http_url(text: str, option: str) -> str:
    if not text.strip().startswith(("http://", "https://")):
        raise ValueError(f"{option}: {_shown(text)!r} is no http:// or https:// URL")
    url = _split(text, option)
    return urlunsplit((url.scheme, _with_port(url), url.path.rstrip("/"), "", ""))


def _with_port(url: SplitResult) -> str:
    """The client wants a port; without one a URL means that of its scheme."""
    return _netloc(url) if url.port else f"{_netloc(url)}:{443 if url.scheme == 'https' else 80}"


def _netloc(url: SplitResult) -> str:
    """Host and port in ASCII and small letters: the form that every library understands."""
    host = (url.hostname or "").encode("idna").decode("ascii")
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{url.port}" if url.port else host


def _split(text: str, option: str) -> SplitResult:
    try:
        url = urlsplit(text.strip())
        port_is_a_number = url.port is None or url.port > 0
        host = (url.hostname or "").encode("idna").decode("ascii")
    except ValueError as error:
        # A part of a password may look like a port, and the error has it.
        reason = "user and password belong into options of their own" if "@" in text else str(error)
        if isinstance(error, UnicodeError):
            reason = "a part of the host name is empty or too long (63 characters at most)"
        raise ValueError(f"{option}: {_shown(text)!r}: {reason}") from None
    if "@" in text:
        # Anywhere: with a slash in the password the rest of it looks like a path.
        raise ValueError(f"{option}: leave user and password out of the URL; there are options for them")
    if not host or not port_is_a_number:
        raise ValueError(f"{option}: {_shown(text)!r} names no host")
    if problem := _problem(text.strip(), url, host):
        raise ValueError(f"{option}: {_shown(text)!r}: {problem}")
    return url


def _problem(text: str, url: SplitResult, host: str) -> str:
    """Say what the libraries below would not take of a URL, '' when they take it all."""
    # urlsplit takes line ends and tabs out without a word.
    if not text.isprintable():
        return "it has a character that is not printable"
    if not _PATH(url.path):
        return "its path has a character that must be written as %XX"
    if "[" not in url.netloc:
        return "" if _HOST(host) and len(host) <= _MAX_HOST else f"{host!r} is not a host name"
    if "%" in host:
        return "IPv6 zone ids are not supported; use an address without '%'"
    try:
        IPv6Address(host)
    except ValueError:
        return f"{host!r} is not an IPv6 address"
    return ""


def _shown(url: str) -> str:
    """A URL as it may be printed: without what stands before an @."""
    return re.sub(r"^\s*([A-Za-z]+://)?.*@", r"\1…@", url, flags=re.DOTALL)


def items_of(given: Sequence[str] | None) -> list[str]:
    items = [item.strip() for text in given or () for item in text.split(",")]
    return list(dict.fromkeys(item for item in items if item))


def worker_name(name: str) -> str:
    if not _WORKER(name):
        raise ValueError("--worker-name takes up to 64 letters, digits, dots, dashes and underscores")
    return name


def collections(given: Sequence[str] | None) -> tuple[str, ...]:
    return _checked(given, _NSID, "--collections", "NSID", _MAX_COLLECTIONS)


def dids(given: Sequence[str] | None) -> tuple[str, ...]:
    return _checked(given, _DID, "--dids", "DID", _MAX_DIDS)


def _checked(
    given: Sequence[str] | None, valid: Callable[[str], Any], option: str, kind: str, most: int
) -> tuple[str, ...]:
    items = sorted(items_of(given))
    for item in items:
        if not valid(item):
            raise ValueError(f"{option}: {item!r} is no {kind}")
    if len(items) > most:
        raise ValueError(f"{option}: {len(items)} given, Jetstream takes at most {most}")
    return tuple(items)


def index_name(name: str) -> str:
    if not _INDEX(name) or name.endswith((".", "-")):
        raise ValueError(f"--index: {name!r} is no index name; use small letters, digits, dashes and dots")
    swallowed = [state for state in STATE_INDICES if state.startswith(f"{name}-")]
    if swallowed:
        raise ValueError(
            f"--index: {name}-* would also match our own {', '.join(swallowed)}; choose another name"
        )
    return name


def http_address(text: str | None, *, embedded: bool) -> Address | None:
    if text is None:
        return addresses.DEFAULT if embedded else None
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"--http: {error}") from None


def text(value: str | None, option: str) -> None:
    """Refuse bytes that are no UTF-8, which Python hands over as surrogates. The value is not repeated."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"{option}: not UTF-8 text; write it in UTF-8") from None


def absolute(path: Path, option: str) -> Path:
    try:
        return path.absolute()
    except OSError as error:
        raise ValueError(
            f"{option}: give an absolute path; the current directory is not accessible: {error.strerror}"
        ) from None


def space_id(name: str) -> str:
    """A space's id; '' is the default one, as in Kibana's paths."""
    if name and not _SPACE(name):
        raise ValueError(
            f"--kibana-space: {name!r} is no id of a space; it has small letters, digits, dashes and "
            "underscores, and is not the name that Kibana shows"
        )
    return "" if name == "default" else name


def certificates(path: Path, option: str) -> None:
    """What is no CA file would look like a server that is not to be trusted."""
    if not path.is_file():
        raise ValueError(f"{option}: there is no file {path}")
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error
        raise ValueError(f"{option}: can't use {path}: {reason}") from None


def client_certificate(cert: Path | None, key: Path | None) -> None:
    """Raise ValueError for files that TLS can't use: no request would ever say why."""
    if cert is None:
        if key is not None:
            raise ValueError("--es-key needs --es-cert")
        return
    for path, option in ((cert, "--es-cert"), (key, "--es-key")):
        if path is not None and not path.is_file():
            raise ValueError(f"{option}: there is no file {path}")
    try:
        # With a password, or it would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = "certificate and key are not in PEM, do not belong together, or the key has a password"
        reason = reason if isinstance(error, ssl.SSLError | ValueError) else str(error)
        raise ValueError(f"--es-cert: can't use {cert}{f' with {key}' if key else ''}: {reason}") from None


def fingerprint(text: str) -> str:
    """The SHA-256 of a certificate, as openssl and Elasticsearch write it; 64 small letters and digits."""
    digits = text.strip().replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError(f"{text!r} is not the SHA-256 of a certificate; it has 64 hexadecimal digits")
    return digits


def basic_token(user: str, password: str) -> str:
    """What stands for them in a request's header, and in the answer of a proxy that shows it."""
    return b64encode(f"{user}:{password}".encode()).decode()


def secret(text: str) -> str:
    """Return a secret without the byte order mark and line ends that editors and env files add to it.

    Blanks stay: they may belong to a password.
    """
    return text.removeprefix("\ufeff").strip("\r\n")


def api_key(key: str) -> str:
    """The `encoded` one of Elasticsearch's answer. Anything else is not repeated: it may be half a key."""
    key = secret(key)
    if not _API_KEY(key):
        raise ValueError("this is no encoded API key; take what Elasticsearch and Kibana call 'encoded'")
    return key


class SecretFile(NamedTuple):
    """Where a secret stands by itself. It is read again when the secret is refused."""

    option: str
    path: Path
    check: Callable[[str], str] = str

    def read(self) -> str:
        """Raises ValueError, which does not tell what the file holds."""
        try:
            held = secret(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise ValueError(f"{self.option}: can't read {self._shown()}: {reason}") from None
        if not held or "\n" in held:
            raise ValueError(f"{self.option}: {self.path} must hold the secret alone, on one line")
        try:
            return self.check(held)
        except ValueError as error:
            raise ValueError(f"{self.option}: {self.path}: {error}") from None

    def _shown(self) -> str:
        """Its path, unless it looks as if somebody gave the secret itself."""
        if self.path.is_absolute() or (self.path.parent != Path() and self.path.parent.exists()):
            return str(self.path)
        return "a file of that name"


# Where systemd and Docker put secrets, with the mode they choose: nobody else gets there.
_GUARDED = Path("/run/secrets")


def exposure(option: str, path: Path, credentials: str | None) -> str | None:
    """Return a warning when other users of this machine can read `path`, which holds a secret of `option`.

    A group counts only in a file of our own: a file of root that a group may read is how a service gets it.
    `credentials` is $CREDENTIALS_DIRECTORY of systemd.
    """
    guarded = [_GUARDED, *([Path(credentials)] if credentials else [])]
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or any(path.absolute().is_relative_to(one) for one in guarded):
            return None
    except OSError:
        return None
    ours = found.st_uid == os.geteuid()
    if not found.st_mode & (stat.S_IROTH | (stat.S_IRGRP if ours else 0)):
        return None
    chmod = f"chmod 600 {shlex.quote(str(path))}"
    fix = chmod if ours else f"make it a file of this user and {chmod}"
    mode = f"{found.st_mode & 0o777:04o}"
    return f"{option}: other users can read {path}, which holds a secret (mode {mode}); to fix it: {fix}"
