"""Options: flags, SKEETSLURPER_… variables and config files become one frozen `Config`."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import ssl
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO
from urllib.parse import SplitResult, urlsplit, urlunsplit

import configargparse

from slurp import __version__
from slurp.completion import SHELLS, PrintCompletion
from slurp.errors import Exit
from slurp.http import address
from slurp.http.address import Address, parse_address
from slurp.position import FIRST_TIME_CURSOR, LIVE
from slurp.units import parse_duration, parse_size

# They end the program at once, or say where the others stand.
FLAGS_ONLY = ("--help", "--version", "--config", "--print-completion")
ENV_PREFIX = "SKEETSLURPER_"
CONFIG_FILES = ("/etc/skeetslurper.conf", "~/.config/skeetslurper.conf")
STATE_INDICES = ("skeetslurper-state", "skeetslurper-stats", "skeetslurper-drift")
PUBLIC_HOSTS = tuple(
    f"wss://jetstream{n}.us-{coast}.bsky.network" for coast in ("east", "west") for n in (1, 2)
)

_NSID = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*(\.[a-zA-Z0-9-]+)*(\.[a-zA-Z][a-zA-Z0-9]*|\.\*)").fullmatch
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]+").fullmatch
_INDEX = re.compile(r"[a-z0-9][a-z0-9_.-]{0,199}").fullmatch
_WORKER = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_SPACE = re.compile(r"[a-z0-9_-]+").fullmatch
_MIN_RETENTION_DAYS = 3
_MAX_COLLECTIONS, _MAX_DIDS = 100, 10_000


@dataclass(frozen=True)
class Config:
    """What the user chose. Durations are seconds, sizes bytes, `since` and `replay_from` cursors or LIVE."""

    jetstream: tuple[str, ...]
    redundant: bool
    collections: tuple[str, ...]
    dids: tuple[str, ...]
    since: int
    replay_from: int | None
    catch_up: bool
    stall_timeout: float
    protocol: str
    compress: str
    jetstream_ca: Path | None

    es: tuple[str, ...]
    es_user: str
    es_pass: str = field(repr=False)
    es_pass_file: Path | None
    es_api_key: str | None = field(repr=False)
    es_ca: Path | None
    index: str
    retention_days: int | None
    shards: int
    replicas: int | None
    refresh: float
    codec: str
    lexicons: Path | None
    setup_only: bool
    no_setup: bool

    kibana: str | None
    kibana_space: str
    kibana_user: str | None
    kibana_pass: str = field(repr=False)
    kibana_pass_file: Path | None
    kibana_overwrite: bool

    batch: int
    flush: float
    indexers: int
    buffer: int
    buffer_bytes: int

    worker_name: str
    dead_letter: Path
    http: Address | None
    stats_interval: float
    wait: float
    grace: float
    log_level: str
    log_format: str

    embedded: bool
    embedded_data: Path | None
    embedded_version: str | None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value known at start; logs are scrubbed of them."""
        basic = (
            basic_token(self.es_user, self.es_pass),
            basic_token(self.kibana_user or self.es_user, self.kibana_pass),
        )
        return tuple(s for s in (self.es_pass, self.es_api_key, self.kibana_pass, *basic) if s)


class _Usage(Exception):
    """What is wrong with the options, as one line."""


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        # The value of a mistyped option may be a secret: name the option, and only the first, for the
        # next may be a word of that value.
        if message.startswith("unrecognized arguments:"):
            words = message.split(":", 1)[1].split()
            names = [w.split("=", 1)[0] for w in words if w.startswith("-")] or ["(a word without an option)"]
            message = f"unknown option {names[0]}{_suggestion(names[0], self._option_string_actions)}"
        elif found := _NO_LIST(message):
            message = f"{found[1]} takes one value, not a list in brackets"
        elif found := _NO_SWITCH(message):
            message = f"{found[1]} takes true or false"
        raise _Usage(message)


# What configargparse says of a value in a file or variable, with the value in it.
_NO_LIST = re.compile(r"(\S+) can't be set to a list ").match
_NO_SWITCH = re.compile(r"Unexpected value for (\S+): ").match


class _ConfigFile(configargparse.DefaultConfigFileParser):  # type: ignore[misc]
    """Lines of 'name = value'. What is wrong with one is told by its number: it may hold a secret."""

    def parse(self, stream: TextIO) -> dict[str, Any]:
        number = 0

        def counted() -> Iterator[str]:
            nonlocal number
            for number, line in enumerate(stream, start=1):  # noqa: B007 - told below
                yield line

        try:
            items: dict[str, Any] = super().parse(counted())
        except configargparse.ConfigFileParserException:
            raise _Usage(f"{stream.name}, line {number}: this is no 'name = value'") from None
        for key in items:
            # configargparse would take another file and not read it.
            if f"--{key.removeprefix('--')}" in FLAGS_ONLY:
                raise _Usage(f"{stream.name}: --{key.removeprefix('--')} is a flag only")
        return items


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def build_parser() -> configargparse.ArgumentParser:
    """The whole command line; it touches neither network nor file."""
    parser = _Parser(
        prog="skeetslurper",
        description="Slurp Bluesky's Jetstream into Elasticsearch, see it in Kibana. No option need be set.",
        add_config_file_help=False,
        add_env_var_help=False,
        allow_abbrev=False,
        auto_env_var_prefix=ENV_PREFIX,
        default_config_files=list(CONFIG_FILES),
        args_for_setting_config_path=["-c", "--config"],
        config_arg_help_message="read options from this file as well, one 'name = value' a line",
        config_file_parser_class=_ConfigFile,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=26, width=79),
        epilog=(
            "Every option can also come from the environment (--es-user: SKEETSLURPER_ES_USER) or from "
            + " or ".join(CONFIG_FILES)
            + " (es-user = elastic). Flags win over the environment, the environment over files; lists are "
            "repeated flags, or values with commas. Durations: 500ms, 30s, 5m, 36h, 30d. "
            "Exit codes: 0 done or stopped on request, 1 failed, 2 wrong usage or credentials."
        ),
    )
    parser.add_argument("--version", action="version", version=f"skeetslurper {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        default=argparse.SUPPRESS,
        metavar="SHELL",
        help="print what bash, zsh or fish needs to complete options, and exit",
    )

    group = parser.add_argument_group("what to read")
    group.add_argument(
        "--jetstream",
        action="append",
        metavar="URL",
        help="Jetstream server, repeatable; the quickest is taken (default: the four public ones)",
    )
    group.add_argument(
        "--redundant",
        action="store_true",
        help="read from all --jetstream at once, so that what one of them misses comes from another",
    )
    group.add_argument(
        "--collections",
        action="append",
        metavar="NSID",
        help="only these collections, like app.bsky.feed.post or app.bsky.graph.*; repeatable",
    )
    group.add_argument("--dids", action="append", metavar="DID", help="only these accounts; repeatable")
    group.add_argument(
        "--since",
        metavar="WHEN",
        type=_value(parse_start),
        default=LIVE,
        help="where to start while there is no checkpoint: 'live', a duration back, a UTC time "
        "like 2026-11-23T12:00, or a cursor: a plain number is a sequence number of the server, "
        "from 10^15 on Unix time in microseconds (default: live)",
    )
    group.add_argument(
        "--replay-from",
        metavar="WHEN",
        type=_value(parse_start),
        help="start here for this one run, whatever the checkpoint says; WHEN as for --since",
    )
    group.add_argument("--catch-up", action="store_true", help="exit 0 once everything up to now is indexed")
    group.add_argument(
        "--stall-timeout",
        metavar="TIME",
        type=_value(parse_duration),
        default=30.0,
        help="a stream silent for this long is dead (default: 30s)",
    )
    group.add_argument(
        "--protocol",
        choices=["auto", "v1", "v2"],
        default="auto",
        metavar="NAME",
        help="wire of Jetstream: auto takes v2 from servers that have it, v1 from others (default: auto)",
    )
    group.add_argument(
        "--compress",
        choices=["auto", "on", "off"],
        default="auto",
        metavar="WHEN",
        help="zstd on the v2 wire: auto is on, but not from this machine (default: auto)",
    )
    group.add_argument(
        "--jetstream-ca",
        metavar="FILE",
        type=Path,
        help="CA certificates (PEM) for wss, instead of the machine's",
    )

    group = parser.add_argument_group("Elasticsearch")
    group.add_argument(
        "--es", action="append", metavar="URL", help="node, repeatable (default: http://localhost:9200)"
    )
    group.add_argument("--es-user", metavar="NAME", default="elastic", help="(default: elastic)")
    group.add_argument(
        "--es-pass",
        metavar="WORD",
        default="changeme",
        help="(default: changeme); a file keeps it out of the process list",
    )
    group.add_argument(
        "--es-pass-file",
        metavar="FILE",
        type=Path,
        help="file with the password; read again when Elasticsearch refuses it",
    )
    group.add_argument("--es-api-key", metavar="KEY", help="encoded API key, instead of user and password")
    group.add_argument("--es-ca", metavar="FILE", type=Path, help="CA certificates (PEM) for https")
    group.add_argument(
        "--index",
        metavar="NAME",
        default="bluesky-events",
        help="day indices are NAME-YYYY.MM.DD (default: bluesky-events)",
    )
    group.add_argument(
        "--retention",
        metavar="TIME",
        type=_value(parse_retention),
        default=30,
        help="older days are deleted and their events not indexed: 3d or more, or 'forever' (default: 30d)",
    )
    group.add_argument(
        "--shards",
        metavar="N",
        type=_value(_at_least(1)),
        default=1,
        help="primary shards of a day index (default: 1)",
    )
    group.add_argument(
        "--replicas",
        metavar="N",
        type=_value(parse_replicas),
        help="copies of each shard, or 'auto': none on one node, one on several (default: auto)",
    )
    group.add_argument(
        "--refresh",
        metavar="TIME",
        type=_value(parse_duration),
        default=5.0,
        help="new documents can be searched after this (default: 5s)",
    )
    group.add_argument(
        "--codec",
        choices=["default", "best_compression"],
        default="default",
        metavar="NAME",
        help="default, or best_compression: less disk, more CPU (default: default)",
    )
    group.add_argument(
        "--lexicons",
        metavar="DIR",
        type=Path,
        help="lexicon files (JSON) of third parties whose records get fields of their own",
    )
    group.add_argument(
        "--setup-only",
        action="store_true",
        help="put templates, pipeline and policy, then exit 0: for an administrator",
    )
    group.add_argument(
        "--no-setup",
        action="store_true",
        help="change no template, pipeline or policy: for a user with few privileges",
    )

    group = parser.add_argument_group("Kibana")
    group.add_argument(
        "--kibana",
        metavar="URL",
        default="http://localhost:5601",
        help="gets data views and dashboards once it is up (default: http://localhost:5601)",
    )
    group.add_argument("--no-kibana", action="store_true", help="leave Kibana alone")
    group.add_argument(
        "--kibana-space",
        metavar="NAME",
        default="",
        help="id of the space that gets them (default: the default space)",
    )
    group.add_argument(
        "--kibana-user", metavar="NAME", help="(default: the one of Elasticsearch, or its API key)"
    )
    group.add_argument("--kibana-pass", metavar="WORD", help="(default: the one of Elasticsearch)")
    group.add_argument(
        "--kibana-pass-file",
        metavar="FILE",
        type=Path,
        help="file with the password; read again when Kibana refuses it",
    )
    group.add_argument(
        "--kibana-overwrite",
        action="store_true",
        help="replace ours at each start even where somebody has edited them",
    )

    group = parser.add_argument_group("throughput")
    group.add_argument(
        "--batch",
        metavar="N",
        type=_value(_at_least(1)),
        default=2000,
        help="events in a bulk request (default: 2000)",
    )
    group.add_argument(
        "--flush",
        metavar="TIME",
        type=_value(parse_duration),
        default=1.0,
        help="a batch waits no longer than this (default: 1s)",
    )
    group.add_argument(
        "--indexers", metavar="N", type=_value(_at_least(1)), default=3, help="indexing threads (default: 3)"
    )
    group.add_argument(
        "--buffer",
        metavar="N",
        type=_value(_at_least(1)),
        default=20_000,
        help="events held until acknowledged (default: 20000)",
    )
    group.add_argument(
        "--buffer-bytes",
        metavar="SIZE",
        type=_value(parse_size),
        default=64_000_000,
        help="bytes held until acknowledged (default: 64MB)",
    )

    group = parser.add_argument_group("service")
    group.add_argument(
        "--worker-name",
        metavar="NAME",
        default="",
        help="keeps the checkpoints of workers with equal options apart",
    )
    group.add_argument(
        "--dead-letter",
        metavar="FILE",
        type=Path,
        help="where frames go that are no events (default: dead-letters.jsonl in "
        "$STATE_DIRECTORY or ~/.local/share/skeetslurper)",
    )
    group.add_argument(
        "--http",
        metavar="ADDRESS",
        help="show metrics, health and a page at HOST:PORT, or 'off' "
        f"(default: off, with --embedded {address.DEFAULT})",
    )
    group.add_argument(
        "--stats-interval",
        metavar="TIME",
        type=_value(parse_duration),
        default=30.0,
        help="time between two stats lines (default: 30s)",
    )
    group.add_argument(
        "--wait",
        metavar="TIME",
        type=_value(parse_duration),
        default=120.0,
        help="how long to wait for Elasticsearch at the start (default: 2m)",
    )
    group.add_argument(
        "--grace",
        metavar="TIME",
        type=_value(parse_duration),
        default=25.0,
        help="how long a shutdown may take (default: 25s)",
    )
    group.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        metavar="LEVEL",
        help="debug, info, warning or error (default: info)",
    )
    group.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        metavar="FORMAT",
        help="text or json (default: text)",
    )

    group = parser.add_argument_group("embedded Elasticsearch (needs the extra 'embedded')")
    group.add_argument(
        "--embedded",
        action="store_true",
        help="start an Elasticsearch of our own when nothing answers at --es",
    )
    group.add_argument(
        "--embedded-data",
        metavar="DIR",
        type=Path,
        help="where it keeps its data (default: below ~/.local/share/skeetslurper)",
    )
    group.add_argument("--embedded-version", metavar="X.Y.Z", help="(default: the one that runs everywhere)")
    return parser


def parse(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The `Config` of a command line. What is wrong ends the program: one line, exit code 2."""
    environ = os.environ if environ is None else environ
    parser = build_parser()
    try:
        _refuse_unknown(environ, parser)
        options = parser.parse_args(args=None if argv is None else list(argv), env_vars=environ)
        return _config(options, environ)
    except UnicodeDecodeError as error:
        problem = f"a config file is no UTF-8 text: {error.reason}"
    except OSError as error:
        problem = f"can't read {error.filename}: {error.strerror}"
    except (_Usage, ValueError) as error:
        problem = str(error)
    sys.stderr.write(f"{parser.prog}: {problem}; --help lists the options\n")
    raise SystemExit(Exit.USAGE)


def _refuse_unknown(environ: Mapping[str, str], parser: configargparse.ArgumentParser) -> None:
    # configargparse names the variables only while it parses.
    options = (name for action in parser._actions for name in action.option_strings if name.startswith("--"))
    known = {variable(option) for option in options} - {variable(option) for option in FLAGS_ONLY}
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            raise _Usage(f"unknown environment variable {name}{_suggestion(name, known)}")


def _config(options: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    values = vars(options)
    values.pop("config_file", None)
    es_pass = values["es_pass"]
    if values["es_pass_file"] is not None:
        es_pass = read_secret(values["es_pass_file"], "--es-pass-file")
    if values["kibana_pass_file"] is not None:
        values["kibana_pass"] = read_secret(values["kibana_pass_file"], "--kibana-pass-file")
    if values["kibana_pass"] is None:
        # The file as well: when Kibana refuses the password, it is read again.
        values["kibana_pass"], values["kibana_pass_file"] = es_pass, values["es_pass_file"]
    elif values["es_api_key"] and not values["kibana_user"]:
        raise ValueError("--kibana-pass beside --es-api-key needs --kibana-user")
    for name in ("es_ca", "jetstream_ca"):
        if values[name] is not None:
            _check_certificates(values[name], f"--{name.replace('_', '-')}")
    if values["buffer"] < values["batch"]:
        raise ValueError(f"--buffer {values['buffer']} holds less than one --batch of {values['batch']}")
    if values["setup_only"] and values["no_setup"]:
        raise ValueError("--setup-only and --no-setup contradict each other")
    if values["lexicons"] is not None and not values["lexicons"].is_dir():
        raise ValueError(f"--lexicons: there is no directory {values['lexicons']}")
    for name in ("flush", "refresh", "stall_timeout", "stats_interval", "grace"):
        if values[name] <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be more than nothing")
    jetstream = tuple(map(jetstream_url, _items(values["jetstream"]))) or PUBLIC_HOSTS
    # Of each host there is one checkpoint, whatever the scheme.
    hosts = {url.partition("://")[2] for url in jetstream}
    if values["redundant"] and (not values["jetstream"] or len(hosts) < max(2, len(jetstream))):
        raise ValueError("--redundant needs --jetstream at least twice, each time another host")
    if not _WORKER(values["worker_name"] or "-"):
        raise ValueError("--worker-name takes up to 64 letters, digits, dots, dashes and underscores")

    retention_days = values.pop("retention")
    kibana = None if values.pop("no_kibana") else http_url(values["kibana"], "--kibana")
    return Config(
        **{
            **values,
            "jetstream": jetstream,
            "collections": _checked(values["collections"], _NSID, "--collections", "NSID", _MAX_COLLECTIONS),
            "dids": _checked(values["dids"], _DID, "--dids", "DID", _MAX_DIDS),
            "es": tuple(http_url(u, "--es") for u in _items(values["es"])) or ("http://localhost:9200",),
            "es_pass": es_pass,
            "kibana": kibana,
            "kibana_space": _space(values["kibana_space"]),
            "index": _index(values["index"]),
            "http": _http(values["http"], embedded=values["embedded"]),
            "dead_letter": values["dead_letter"] or _default_dead_letter(environ),
            "retention_days": retention_days,
        }
    )


def variable(option: str) -> str:
    """The environment variable of an option: `--es-user` is SKEETSLURPER_ES_USER."""
    return ENV_PREFIX + option.removeprefix("--").replace("-", "_").upper()


def _value(parse_text: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a parser's ValueError text reach the user, which argparse does only for its own error."""

    def convert(text: str) -> Any:
        try:
            return parse_text(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _at_least(least: int) -> Callable[[str], int]:
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


def jetstream_url(text: str) -> str:
    """`ws(s)://host[:port][/path]` without a trailing slash; a bare host is wss."""
    if "://" not in text:
        text = f"wss://{text}"
    url = _split(text, "--jetstream")
    if url.scheme not in ("ws", "wss") or url.query:
        raise ValueError(f"--jetstream: {_shown(text)!r} is no ws:// or wss:// URL of a server")
    path = url.path.rstrip("/").removesuffix("/subscribe")
    path = path.removesuffix("/xrpc/network.bsky.jetstream.subscribeEvents")
    return urlunsplit((url.scheme, url.netloc.lower(), path, "", ""))


def http_url(text: str, option: str) -> str:
    if not text.strip().startswith(("http://", "https://")):
        raise ValueError(f"{option}: {_shown(text)!r} is no http:// or https:// URL")
    url = _split(text, option)
    return urlunsplit((url.scheme, _with_port(url), url.path.rstrip("/"), "", ""))


def _with_port(url: SplitResult) -> str:
    """The client wants a port; without one a URL means that of its scheme."""
    return url.netloc if url.port else f"{url.netloc.rstrip(':')}:{443 if url.scheme == 'https' else 80}"


def _split(text: str, option: str) -> SplitResult:
    try:
        url = urlsplit(text.strip())
        port_is_a_number = url.port is None or url.port > 0
        (url.hostname or "").encode("idna")
    except ValueError as error:
        # A part of a password may look like a port, and the error has it.
        reason = "user and password belong into options of their own" if "@" in text else error
        raise ValueError(f"{option}: {_shown(text)!r}: {reason}") from None
    if "@" in text:
        # Anywhere: with a slash in the password the rest of it looks like a path.
        raise ValueError(f"{option}: leave user and password out of the URL; there are options for them")
    if not url.hostname or not port_is_a_number:
        raise ValueError(f"{option}: {_shown(text)!r} names no host")
    return url


def _shown(url: str) -> str:
    """A URL as it may be printed: without what stands before an @."""
    return re.sub(r"^\s*([A-Za-z]+://)?.*@", r"\1…@", url, flags=re.DOTALL)


def _items(given: Sequence[str] | None) -> list[str]:
    items = [item.strip() for text in given or () for item in text.split(",")]
    return list(dict.fromkeys(item for item in items if item))


def _checked(
    given: Sequence[str] | None, valid: Callable[[str], Any], option: str, kind: str, most: int
) -> tuple[str, ...]:
    items = sorted(_items(given))
    for item in items:
        if not valid(item):
            raise ValueError(f"{option}: {item!r} is no {kind}")
    if len(items) > most:
        raise ValueError(f"{option}: {len(items)} given, Jetstream takes at most {most}")
    return tuple(items)


def _index(name: str) -> str:
    if not _INDEX(name) or name.endswith((".", "-")):
        raise ValueError(f"--index: {name!r} is no index name; use small letters, digits, dashes and dots")
    swallowed = [state for state in STATE_INDICES if state.startswith(f"{name}-")]
    if swallowed:
        raise ValueError(
            f"--index: {name}-* would also match our own {', '.join(swallowed)}; choose another name"
        )
    return name


def _http(text: str | None, *, embedded: bool) -> Address | None:
    if text is None:
        return address.DEFAULT if embedded else None
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"--http: {error}") from None


def _space(name: str) -> str:
    """A space's id; '' is the default one, as in Kibana's paths."""
    if name and not _SPACE(name):
        raise ValueError(
            f"--kibana-space: {name!r} is no id of a space; it has small letters, digits, dashes and "
            "underscores, and is not the name that Kibana shows"
        )
    return "" if name == "default" else name


def _check_certificates(path: Path, option: str) -> None:
    """What is no CA file would look like a server that is not to be trusted."""
    if not path.is_file():
        raise ValueError(f"{option}: there is no file {path}")
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error
        raise ValueError(f"{option}: can't use {path}: {reason}") from None


def basic_token(user: str, password: str) -> str:
    """What stands for them in a request's header, and in the answer of a proxy that shows it."""
    return b64encode(f"{user}:{password}".encode()).decode()


def read_secret(path: Path, option: str) -> str:
    """The first line of a secret's file."""
    try:
        secret = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ValueError(f"{option}: can't read {path}: {reason}") from None
    if not secret or "\n" in secret:
        raise ValueError(f"{option}: {path} must hold the password on one line")
    return secret


def data_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where this user's programs keep data."""
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "skeetslurper"


def _default_dead_letter(environ: Mapping[str, str]) -> Path:
    # systemd gives a list where a unit names several state directories.
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return (Path(state) if state else data_home(environ)) / "dead-letters.jsonl"
