"""Parsing and validation of option values. Each function raises ValueError with a message for the user."""

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
# Names that name services accept and Docker generates: letters, digits, hyphens and underscores between dots.
_HOST = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.IGNORECASE | re.ASCII
).fullmatch
_MAX_HOST_LENGTH = 253
# RFC 3986.
_PATH = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*").fullmatch
# Base64; the keys of Elastic Cloud have a prefix before it.
_API_KEY = re.compile(r"[A-Za-z0-9+/=_-]*").fullmatch
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*").fullmatch
_MIN_RETENTION_DAYS = 3
_MIN_DISK_BYTES = 100 * 10**6
# Limits of Jetstream.
_MAX_COLLECTIONS, _MAX_DIDS = 100, 10_000


# Numbers, times and sizes


def integer_from(minimum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers of at least `minimum`."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < minimum:
            raise ValueError(f"invalid number {text!r} (use a whole number of {minimum} or more)")
        return int(text)

    return parse


def parse_start(text: str) -> int:
    """Return LIVE for `live`, else the cursor of a duration back from now, of a time, or the cursor itself.

    A time without a time zone is UTC.
    """
    if text == "live":
        return LIVE
    if text.isascii() and text.isdigit():
        if int(text) > time.time() * 1e6:
            raise ValueError(f"cursor {text!r} is in the future")
        return int(text)
    now = datetime.now(UTC)
    try:
        return max(FIRST_TIME_CURSOR, int((now.timestamp() - parse_duration(text)) * 1e6))
    except ValueError:
        pass
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"invalid start {text!r} (use live, a duration such as 2h, a time such as 2026-11-23T12:00, or a "
            "cursor)"
        ) from None
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    if start > now:
        raise ValueError(f"time {text!r} is in the future")
    # An earlier time would look like a sequence number, and no server has events that old.
    return max(FIRST_TIME_CURSOR, int(start.timestamp() * 1e6))


def parse_replicas(text: str) -> int | None:
    """Return the number of replicas, None for `auto`."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"invalid number of replicas {text!r} (use auto, 0, 1, …)")
    return int(text)


def parse_retention(text: str) -> int | None:
    """Return the retention in whole days, None for `forever`."""
    if text == "forever":
        return None
    days = parse_duration(text) / 86_400
    if days < _MIN_RETENTION_DAYS or days != int(days):
        raise ValueError(
            f"invalid retention {text!r} (use whole days, {_MIN_RETENTION_DAYS}d or more, or forever)"
        )
    return int(days)


def parse_max_disk(text: str) -> int:
    """Return a size in bytes, 0 for `off`."""
    if text == "off":
        return 0
    size = parse_size(text)
    if size < _MIN_DISK_BYTES:
        raise ValueError(f"size {text!r} is too small (use 100MB or more, such as 50GB, or off)")
    return size


# URLs and addresses


def parse_jetstream_url(text: str) -> str:
    """Return a server as `ws(s)://host[:port][/path]` without a trailing slash; a bare host gets wss."""
    if "://" not in text:
        text = f"wss://{text}"
    url = _split_url(text, "--jetstream")
    if url.scheme not in ("ws", "wss") or url.query:
        raise ValueError(f"--jetstream: invalid URL {_redact_url(text)!r} (use wss://HOST or ws://HOST:PORT)")
    path = url.path.rstrip("/").removesuffix("/subscribe")
    path = path.removesuffix("/xrpc/network.bsky.jetstream.subscribeEvents")
    return urlunsplit((url.scheme, _netloc(url), path, "", ""))


def parse_http_url(text: str, option: str) -> str:
    """Return an `http(s)` URL with a port and without a trailing slash."""
    if not text.strip().startswith(("http://", "https://")):
        raise ValueError(
            f"{option}: invalid URL {_redact_url(text)!r} (use http://HOST:PORT or https://HOST:PORT)"
        )
    url = _split_url(text, option)
    return urlunsplit((url.scheme, _netloc_with_port(url), url.path.rstrip("/"), "", ""))


def parse_http_address(text: str | None, *, embedded: bool) -> Address | None:
    """Return the listen address of `--http`, None for no HTTP server."""
    if text is None:
        return addresses.DEFAULT if embedded else None
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"--http: {error}") from None


def _netloc_with_port(url: SplitResult) -> str:
    """Return host and port. The Elasticsearch client requires a port; the default is that of the scheme."""
    return _netloc(url) if url.port else f"{_netloc(url)}:{443 if url.scheme == 'https' else 80}"


def _netloc(url: SplitResult) -> str:
    """Return host and port in lower-case ASCII (IDNA), the form that every library accepts."""
    host = (url.hostname or "").encode("idna").decode("ascii")
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{url.port}" if url.port else host


def _split_url(text: str, option: str) -> SplitResult:
    try:
        url = urlsplit(text.strip())
        is_port_valid = url.port is None or url.port > 0
        host = (url.hostname or "").encode("idna").decode("ascii")
    except ValueError as error:
        # Part of a password may look like a port, and the error quotes it.
        reason = "use the options for user name and password instead" if "@" in text else str(error)
        if isinstance(error, UnicodeError):
            reason = "a part of the host name is empty or longer than 63 characters"
        raise ValueError(f"{option}: invalid URL {_redact_url(text)!r}: {reason}") from None
    if "@" in text:
        # Anywhere in the URL: after a slash in the password, the rest of it looks like a path.
        raise ValueError(
            f"{option}: user name and password in the URL (use the options for user name and password)"
        )
    if not host or not is_port_valid:
        raise ValueError(f"{option}: invalid URL {_redact_url(text)!r}: no host, or port 0")
    if problem := _url_problem(text.strip(), url, host):
        raise ValueError(f"{option}: invalid URL {_redact_url(text)!r}: {problem}")
    return url


def _url_problem(text: str, url: SplitResult, host: str) -> str:
    """Return why the HTTP and WebSocket libraries would reject a URL, '' if they accept it."""
    # urlsplit removes line ends and tabs silently.
    if not text.isprintable():
        return "it contains a character that is not printable"
    if not _PATH(url.path):
        return "a character of the path must be written as %XX"
    if "[" not in url.netloc:
        is_valid = _HOST(host) and len(host) <= _MAX_HOST_LENGTH
        return "" if is_valid else f"invalid host name {host!r}"
    if "%" in host:
        return "IPv6 zone ids are not supported (use an address without '%')"
    try:
        IPv6Address(host)
    except ValueError:
        return f"invalid IPv6 address {host!r}"
    return ""


def _redact_url(url: str) -> str:
    """Return a URL for an error message, without user name and password."""
    return re.sub(r"^\s*([A-Za-z]+://)?.*@", r"\1…@", url, flags=re.DOTALL)


# Lists and names


def split_list(values: Sequence[str] | None) -> list[str]:
    """Return the different items of a repeatable option, whose values may have several between commas."""
    items = [item.strip() for value in values or () for item in value.split(",")]
    return list(dict.fromkeys(item for item in items if item))


def parse_collections(values: Sequence[str] | None) -> tuple[str, ...]:
    """Return the sorted NSIDs of `--collections`."""
    return _parse_list(values, _NSID, "--collections", "NSID", _MAX_COLLECTIONS)


def parse_dids(values: Sequence[str] | None) -> tuple[str, ...]:
    """Return the sorted DIDs of `--dids`."""
    return _parse_list(values, _DID, "--dids", "DID", _MAX_DIDS)


def _parse_list(
    values: Sequence[str] | None, is_valid: Callable[[str], Any], option: str, kind: str, max_items: int
) -> tuple[str, ...]:
    items = sorted(split_list(values))
    for item in items:
        if not is_valid(item):
            example = "app.bsky.feed.post" if kind == "NSID" else "did:plc:…"
            raise ValueError(f"{option}: invalid {kind} {item!r} (use the form {example})")
    if len(items) > max_items:
        raise ValueError(f"{option}: {len(items)} values, but Jetstream accepts at most {max_items}")
    return tuple(items)


def check_worker_name(name: str) -> None:
    """Raise ValueError for a name that is not valid for `--worker-name`."""
    if not _WORKER(name):
        raise ValueError(
            "--worker-name: invalid name (use up to 64 letters, digits, dots, hyphens and underscores)"
        )


def parse_index_name(name: str) -> str:
    """Return the index prefix `name` if it is valid and does not match an index for state."""
    if not _INDEX(name) or name.endswith((".", "-")):
        raise ValueError(
            f"--index: invalid index name {name!r} (use lower-case letters, digits, hyphens and dots)"
        )
    matched = [state for state in STATE_INDICES if state.startswith(f"{name}-")]
    if matched:
        raise ValueError(
            f"--index: {name}-* would also match the internal {', '.join(matched)} (choose another name)"
        )
    return name


def parse_space_id(name: str) -> str:
    """Return the id of a Kibana space, '' for the default space, as in the paths of Kibana's API."""
    if name and not _SPACE(name):
        raise ValueError(
            f"--kibana-space: invalid space id {name!r} (use the id, which has lower-case letters, digits, "
            "hyphens and underscores, not the name that Kibana shows)"
        )
    return "" if name == "default" else name


def check_utf8(value: str | None, option: str) -> None:
    """Raise ValueError, without the value, for bytes that are not UTF-8: Python maps them to surrogates."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"{option}: invalid text (use UTF-8)") from None


def absolute_path(path: Path, option: str) -> Path:
    """Return `path` as an absolute path."""
    try:
        return path.absolute()
    except OSError as error:
        raise ValueError(
            f"{option}: the current directory is not accessible: {error.strerror} (use an absolute path)"
        ) from None


# TLS files


def check_ca_file(path: Path, option: str) -> None:
    """Raise ValueError for a file without certificates, which would look like an untrusted server later."""
    if not path.is_file():
        raise ValueError(f"{option}: no such file: {path}")
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = "it contains no PEM certificate" if isinstance(error, ssl.SSLError) else error
        raise ValueError(f"{option}: cannot use {path}: {reason}") from None


def check_client_certificate(cert: Path | None, key: Path | None) -> None:
    """Raise ValueError for files that TLS cannot use, as the error of a request would not name the reason."""
    if cert is None:
        if key is not None:
            raise ValueError("--es-key requires --es-cert")
        return
    for path, option in ((cert, "--es-cert"), (key, "--es-key")):
        if path is not None and not path.is_file():
            raise ValueError(f"{option}: no such file: {path}")
    try:
        # With an empty password, as OpenSSL would otherwise prompt for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = "certificate or key is not in PEM format, they do not match, or the key is encrypted"
        reason = reason if isinstance(error, ssl.SSLError | ValueError) else str(error)
        raise ValueError(f"--es-cert: cannot use {cert}{f' with {key}' if key else ''}: {reason}") from None


def parse_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint in the format of openssl or Elasticsearch as 64 lower-case hex digits."""
    digits = text.strip().replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError(f"invalid fingerprint {text!r} (use SHA-256, 64 hexadecimal digits)")
    return digits


# Secrets


def basic_token(user: str, password: str) -> str:
    """Return the credentials of HTTP basic authentication, as they are in the Authorization header."""
    return b64encode(f"{user}:{password}".encode()).decode()


def strip_secret(text: str) -> str:
    """Return a secret without the byte order mark and line ends that editors and env files add to it.

    Blanks are kept, as they may be part of a password.
    """
    return text.removeprefix("\ufeff").strip("\r\n")


def parse_api_key(text: str) -> str:
    """Return an API key in the `encoded` form. The error has no value, as it may be half of a key."""
    key = strip_secret(text)
    if not _API_KEY(key):
        raise ValueError("invalid API key (use the 'encoded' form that Elasticsearch and Kibana show)")
    return key


def parse_bearer_token(text: str) -> str:
    """Return a token for a header (RFC 6750). The error has no value."""
    token = strip_secret(text)
    if not _BEARER_TOKEN(token):
        raise ValueError("invalid API key (letters, digits and - . _ ~ + / = are possible)")
    return token


class SecretFile(NamedTuple):
    """A file that contains a secret only. It is read again when a server rejects the secret."""

    option: str
    path: Path
    parse: Callable[[str], str] = str

    def read(self) -> str:
        """Return the secret. Raises ValueError, without the content of the file."""
        try:
            secret = strip_secret(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ValueError(f"{self.option}: cannot read {self._redacted_path()}: {reason}") from None
        if not secret or "\n" in secret:
            raise ValueError(f"{self.option}: {self.path} must contain only the secret, on one line")
        try:
            return self.parse(secret)
        except ValueError as error:
            raise ValueError(f"{self.option}: {self.path}: {error}") from None

    def _redacted_path(self) -> str:
        """Return the path, or a placeholder if the user may have entered the secret instead of a file."""
        if self.path.is_absolute() or (self.path.parent != Path() and self.path.parent.exists()):
            return str(self.path)
        return "the file (its name is not shown, as it may be the secret itself)"


# Docker mounts secrets here, with modes of its own choice; other users have no access to the directory.
_DOCKER_SECRETS = Path("/run/secrets")


def exposure_warning(option: str, path: Path, credentials_directory: str | None) -> str | None:
    """Return a warning if other users of this machine can read `path`, which holds a secret of `option`.

    Access for the group counts only in a file of this user: a file of root with a group that may read it is a
    usual way to give a service its secret. Files in `credentials_directory`, the $CREDENTIALS_DIRECTORY of
    systemd, are protected by the directory.
    """
    protected = [_DOCKER_SECRETS, *([Path(credentials_directory)] if credentials_directory else [])]
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or any(path.absolute().is_relative_to(one) for one in protected):
            return None
    except OSError:
        return None
    is_own = found.st_uid == os.geteuid()
    if not found.st_mode & (stat.S_IROTH | (stat.S_IRGRP if is_own else 0)):
        return None
    chmod = f"chmod 600 {shlex.quote(str(path))}"
    fix = chmod if is_own else f"change its owner to this user and run {chmod}"
    mode = f"{found.st_mode & 0o777:04o}"
    return f"{option}: other users can read {path}, which contains a secret (mode {mode}); to fix it: {fix}"
