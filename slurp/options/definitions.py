"""The command-line options, their help texts and their defaults."""

from __future__ import annotations

import argparse
import glob
from argparse import _ArgumentGroup as Group
from collections.abc import Mapping, Sequence
from pathlib import Path

import configargparse

from slurp import __version__, addresses
from slurp.events.position import LIVE
from slurp.options.completion import SHELLS, PrintCompletion
from slurp.options.config_file import ConfigFile
from slurp.options.elasticsearch import (
    add_connection_options,
    add_deletion_options,
    add_index_options,
    add_kibana_options,
    add_trend_options,
)
from slurp.options.parser import DURATION, ENV_PREFIX, POSITIVE, OptionParser, argument_type, open_config_file
from slurp.options.values import parse_bearer_token, parse_start
from slurp.units import parse_size

CONFIG_FILES = ("/etc/skeetslurper.conf", "~/.config/skeetslurper.conf")
_USER_FILE = "skeetslurper.conf"
_EPILOG = (
    "Each option can also be an environment variable (--es-user: SKEETSLURPER_ES_USER) or a line of "
    + " or ".join(CONFIG_FILES)
    + " (es-user = elastic). The command line overrides the environment, and the environment overrides the "
    "files. In a file, # starts a comment and quotes enclose a value with blanks or #. Repeat an option "
    "marked as repeatable, or separate its values with commas. Durations: 500ms, 30s, 5m, 36h, 30d. Sizes: "
    "500kB, 64MB, 1GB. Exit codes: 0 done or stopped on request, 1 failed, 2 wrong options, "
    "credentials or privileges."
)

_START = argument_type(parse_start)


def config_files(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the config files to read if they exist; the later one overrides the earlier one.

    The file in $XDG_CONFIG_HOME replaces the one in ~/.config if it exists.
    """
    # The XDG specification requires that a relative path is ignored.
    user_file = Path(environ.get("XDG_CONFIG_HOME", "")) / _USER_FILE
    use_xdg = user_file.is_absolute() and user_file.exists()
    return CONFIG_FILES[0], str(user_file) if use_xdg else CONFIG_FILES[1]


def build_parser(files: Sequence[str] = CONFIG_FILES) -> configargparse.ArgumentParser:
    """Return the parser of the command line. It reads the config files `files` when it parses, not before."""
    parser = OptionParser(
        prog="skeetslurper",
        description="Slurp Bluesky's Jetstream into Elasticsearch and explore it in Kibana. "
        "No option is required.",
        add_config_file_help=False,
        add_env_var_help=False,
        allow_abbrev=False,
        auto_env_var_prefix=ENV_PREFIX,
        default_config_files=[glob.escape(file) for file in files],
        args_for_setting_config_path=["-c", "--config"],
        config_arg_help_message="additional config file, with one 'name = value' per line",
        config_file_parser_class=ConfigFile,
        config_file_open_func=open_config_file,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=26, width=79),
        epilog=_EPILOG,
    )
    _add_general_options(parser)
    _add_jetstream_options(parser.add_argument_group("Jetstream"))
    elasticsearch = parser.add_argument_group("Elasticsearch")
    add_connection_options(elasticsearch)
    add_index_options(elasticsearch)
    add_deletion_options(parser.add_argument_group("deletions"))
    add_trend_options(parser.add_argument_group("trends"))
    add_kibana_options(parser.add_argument_group("Kibana"))
    _add_throughput_options(parser.add_argument_group("throughput"))
    _add_service_options(parser.add_argument_group("service"))
    _add_embedded_options(parser.add_argument_group("embedded Elasticsearch (needs the extra 'embedded')"))
    parser._config_file_parser.actions = {
        option.removeprefix("--"): action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    return parser


def _add_general_options(parser: OptionParser) -> None:
    parser.add_argument("--version", action="version", version=f"skeetslurper {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        default=argparse.SUPPRESS,
        metavar="SHELL",
        help="print the completion script for bash, zsh or fish and exit",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="show the effective options, connect to every server, change nothing, and exit",
    )


def _add_jetstream_options(group: Group) -> None:
    group.add_argument(
        "--jetstream",
        action="append",
        metavar="URL",
        help="Jetstream server, repeatable; the worker reads from the fastest one, v2 before v1, and fails "
        "over to the others (default: the two public v2 servers, and the four legacy v1 servers for "
        "failover)",
    )
    group.add_argument(
        "--redundant",
        action="store_true",
        help="read from all --jetstream servers at the same time, so that events missing on one come from "
        "another; without --jetstream from the two public v2 servers",
    )
    group.add_argument(
        "--collections",
        action="append",
        metavar="NSID",
        help="read only these collections, such as app.bsky.feed.post or app.bsky.graph.*; repeatable",
    )
    group.add_argument(
        "--dids", action="append", metavar="DID", help="read only the events of these accounts; repeatable"
    )
    group.add_argument(
        "--since",
        metavar="WHEN",
        type=_START,
        default=LIVE,
        help="where to start if there is no checkpoint: 'live', a duration back from now, a UTC time such as "
        "2026-11-23T12:00, or a cursor: a sequence number of the server, or from 10^15 on Unix time in "
        "microseconds (default: live)",
    )
    group.add_argument(
        "--replay-from",
        metavar="WHEN",
        type=_START,
        help="where to start in this run, regardless of the checkpoint; WHEN as for --since",
    )
    group.add_argument("--catch-up", action="store_true", help="exit 0 once all events up to now are indexed")
    group.add_argument(
        "--stall-timeout",
        metavar="TIME",
        type=DURATION,
        default=30.0,
        help="reconnect after a stream has been silent for this long (default: 30s)",
    )
    group.add_argument(
        "--protocol",
        choices=["auto", "v1", "v2"],
        default="auto",
        metavar="NAME",
        help="Jetstream protocol: v1, v2, or auto: v2 if the server supports it, else v1 (default: auto)",
    )
    group.add_argument(
        "--compress",
        choices=["auto", "on", "off"],
        default="auto",
        metavar="WHEN",
        help="zstd compression of protocol v2: on, off, or auto: on unless the server is on this machine "
        "(default: auto)",
    )
    group.add_argument(
        "--jetstream-ca",
        metavar="FILE",
        type=Path,
        help="CA certificates (PEM) to verify Jetstream servers with, instead of those of the system",
    )
    group.add_argument(
        "--fill-gaps",
        choices=["auto", "off"],
        default="auto",
        metavar="WHEN",
        help="read events that a stream does not have any more from the archive of a v2 server: auto, if one "
        "of the servers has an archive, or off (default: auto)",
    )
    group.add_argument(
        "--jetstream-api-key",
        metavar="KEY",
        type=argument_type(parse_bearer_token),
        help="API key for the archives of the --jetstream servers, if they want one",
    )
    group.add_argument(
        "--jetstream-api-key-file", metavar="FILE", type=Path, help="file with that API key, and nothing else"
    )
    group.add_argument(
        "--archive-spool",
        metavar="DIR",
        type=Path,
        help="folder for files of the archive that are being read, 1 GB at most (default: archive beside the "
        "dead-letter file)",
    )


def _add_throughput_options(group: Group) -> None:
    group.add_argument(
        "--batch", metavar="N", type=POSITIVE, default=2000, help="events per bulk request (default: 2000)"
    )
    group.add_argument(
        "--flush",
        metavar="TIME",
        type=DURATION,
        default=1.0,
        help="longest wait for a batch to fill up (default: 1s)",
    )
    group.add_argument(
        "--indexers", metavar="N", type=POSITIVE, default=3, help="indexing threads (default: 3)"
    )
    group.add_argument(
        "--buffer",
        metavar="N",
        type=POSITIVE,
        default=20_000,
        help="maximum number of events in flight (default: 20000)",
    )
    group.add_argument(
        "--buffer-bytes",
        metavar="SIZE",
        type=argument_type(parse_size),
        default=64_000_000,
        help="maximum size of the events in flight (default: 64MB)",
    )


def _add_service_options(group: Group) -> None:
    group.add_argument(
        "--worker-name",
        metavar="NAME",
        default="",
        help="name of this worker; gives workers with equal options separate checkpoints",
    )
    group.add_argument(
        "--dead-letter",
        metavar="FILE",
        type=Path,
        help="file for frames that cannot be decoded or stored (default: dead-letters.jsonl in "
        "$STATE_DIRECTORY or ~/.local/share/skeetslurper)",
    )
    group.add_argument(
        "--http",
        metavar="ADDRESS",
        help="HOST:PORT or PORT of the HTTP server for metrics, health checks and the web page, or 'off' "
        f"(default: off, with --embedded {addresses.DEFAULT})",
    )
    group.add_argument(
        "--stats-interval",
        metavar="TIME",
        type=DURATION,
        default=30.0,
        help="interval of the stats lines in the log (default: 30s)",
    )
    group.add_argument(
        "--wait",
        metavar="TIME",
        type=DURATION,
        default=120.0,
        help="longest wait for Elasticsearch at startup (default: 2m)",
    )
    group.add_argument(
        "--grace",
        metavar="TIME",
        type=DURATION,
        default=25.0,
        help="time limit of a shutdown (default: 25s)",
    )
    group.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        metavar="LEVEL",
        help="lowest level to log: debug, info, warning or error (default: info)",
    )
    group.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        metavar="FORMAT",
        help="log format: text or json (default: text)",
    )


def _add_embedded_options(group: Group) -> None:
    group.add_argument(
        "--embedded",
        action="store_true",
        help="start an Elasticsearch node on this machine if nothing responds at --es",
    )
    group.add_argument(
        "--embedded-data",
        metavar="DIR",
        type=Path,
        help="data directory of the node (default: below ~/.local/share/skeetslurper)",
    )
    group.add_argument(
        "--embedded-version",
        metavar="X.Y.Z",
        help="Elasticsearch release to start (default: the newest one that the bundled Java can run)",
    )
