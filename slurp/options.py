"""The options: flags, SKEETSLURPER_… variables and config files, and how a mistake in them is told."""

from __future__ import annotations

import argparse
import glob
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import configargparse

from slurp import __version__, addresses
from slurp.completion import SHELLS, PrintCompletion
from slurp.configfile import ConfigFile, suggestion
from slurp.events.position import LIVE
from slurp.units import parse_duration, parse_size
from slurp.values import (
    api_key,
    at_least,
    fingerprint,
    parse_max_disk,
    parse_replicas,
    parse_retention,
    parse_start,
    secret,
)

ENV_PREFIX = "SKEETSLURPER_"
CONFIG_FILES = ("/etc/skeetslurper.conf", "~/.config/skeetslurper.conf")
_USER_FILE = "skeetslurper.conf"


class Usage(Exception):
    """What is wrong with the options, as one line."""


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        # The value of a mistyped option may be a secret: name the option, and only the first, for the
        # next may be a word of that value.
        if message.startswith("unrecognized arguments:"):
            words = message.split(":", 1)[1].split()
            names = [w.split("=", 1)[0] for w in words if w.startswith("-")] or ["(a word without an option)"]
            message = f"unknown option {names[0]}{suggestion(names[0], self._option_string_actions)}"
        elif found := _NO_SWITCH(message):
            message = f"{found[1]} takes true or false"
        raise Usage(message.removeprefix("argument "))


# What configargparse says of a switch in the environment, with the value in it.
_NO_SWITCH = re.compile(r"Unexpected value for (\S+): ").match


def _open(file: str) -> TextIO:
    # Whatever the locale. Some editors begin a file with a byte order mark.
    return open(file, encoding="utf-8-sig")  # noqa: PTH123


def config_files(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the files that are read where they exist, the later one over the earlier one.

    $XDG_CONFIG_HOME takes the place of ~/.config where it has the file.
    """
    # The specification says to ignore a relative path.
    named = Path(environ.get("XDG_CONFIG_HOME", "")) / _USER_FILE
    return CONFIG_FILES[0], str(named) if named.is_absolute() and named.exists() else CONFIG_FILES[1]


def build_parser(files: Sequence[str] = CONFIG_FILES) -> configargparse.ArgumentParser:
    """The whole command line; it touches neither network nor file. `files` are read when it parses."""
    parser = _Parser(
        prog="skeetslurper",
        description="Slurp Bluesky's Jetstream into Elasticsearch, see it in Kibana. No option need be set.",
        add_config_file_help=False,
        add_env_var_help=False,
        allow_abbrev=False,
        auto_env_var_prefix=ENV_PREFIX,
        default_config_files=[glob.escape(file) for file in files],
        args_for_setting_config_path=["-c", "--config"],
        config_arg_help_message="read options from this file as well, one 'name = value' a line",
        config_file_parser_class=ConfigFile,
        config_file_open_func=_open,
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

    parser.add_argument(
        "--check",
        action="store_true",
        help="show the effective options, connect to every server, change nothing, and exit: 0 all good, "
        "1 something can't be reached, 2 wrong options, credentials or privileges",
    )

    group = parser.add_argument_group("what to read")
    group.add_argument(
        "--jetstream",
        action="append",
        metavar="URL",
        help="Jetstream server, repeatable; the quickest of those with v2 is taken, else the quickest "
        "(default: the two public v2 servers, and the four legacy v1 servers for fail-over)",
    )
    group.add_argument(
        "--redundant",
        action="store_true",
        help="read from all --jetstream at once, so that what one of them misses comes from another "
        "(default: the two public v2 servers)",
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
    group.add_argument("--es-user", metavar="NAME", default="elastic", help="who asks (default: elastic)")
    group.add_argument(
        "--es-pass",
        metavar="WORD",
        type=secret,
        default="changeme",
        help="password (default: changeme); a file keeps it out of the process list",
    )
    group.add_argument(
        "--es-pass-file",
        metavar="FILE",
        type=Path,
        help="file with the password, in place of --es-pass; read again when Elasticsearch refuses it",
    )
    group.add_argument(
        "--es-api-key",
        metavar="KEY",
        type=_value(api_key),
        help="encoded API key, instead of user and password",
    )
    group.add_argument(
        "--es-api-key-file",
        metavar="FILE",
        type=Path,
        help="file with the API key; read again when Elasticsearch refuses it",
    )
    group.add_argument("--es-ca", metavar="FILE", type=Path, help="CA certificates (PEM) for https")
    group.add_argument(
        "--es-ca-fingerprint",
        metavar="HEX",
        type=_value(fingerprint),
        help="SHA-256 of the CA of --es, instead of --es-ca; Kibana is not verified by it",
    )
    group.add_argument(
        "--es-cert",
        metavar="FILE",
        type=Path,
        help="client certificate (PEM) to show to --es",
    )
    group.add_argument(
        "--es-key", metavar="FILE", type=Path, help="its private key (PEM), unless it is in the same file"
    )
    group.add_argument(
        "--es-compress",
        choices=["auto", "on", "off"],
        default="auto",
        metavar="WHEN",
        help="gzip requests to --es: auto is on, but not to this machine (default: auto)",
    )
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
        "--max-disk",
        metavar="SIZE",
        type=_value(parse_max_disk),
        help="disk space for the days of --index, room for merges included; the oldest day is deleted first: "
        "100MB or more, or 'off' (default: off; with --embedded half of the disk, at most 100GB)",
    )
    group.add_argument(
        "--shards",
        metavar="N",
        type=_value(at_least(1)),
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
        help="gets data views and dashboards once it is up (default: http://localhost:5601 where "
        "every --es is on this machine, else none)",
    )
    group.add_argument("--no-kibana", action="store_true", help="leave Kibana alone")
    group.add_argument(
        "--kibana-space",
        metavar="NAME",
        default="",
        help="id of the space that gets them (default: the default space)",
    )
    group.add_argument(
        "--kibana-user", metavar="NAME", help="who asks (default: the one of Elasticsearch, or its API key)"
    )
    group.add_argument(
        "--kibana-pass", metavar="WORD", type=secret, help="password (default: the one of Elasticsearch)"
    )
    group.add_argument(
        "--kibana-pass-file",
        metavar="FILE",
        type=Path,
        help="file with the password, in place of --kibana-pass; read again when Kibana refuses it",
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
        type=_value(at_least(1)),
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
        "--indexers", metavar="N", type=_value(at_least(1)), default=3, help="indexing threads (default: 3)"
    )
    group.add_argument(
        "--buffer",
        metavar="N",
        type=_value(at_least(1)),
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
        f"(default: off, with --embedded {addresses.DEFAULT})",
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
    group.add_argument(
        "--embedded-version", metavar="X.Y.Z", help="which release (default: the one that runs everywhere)"
    )
    parser._config_file_parser.actions = {
        option.removeprefix("--"): action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    return parser


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
