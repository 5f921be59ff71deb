"""The command-line options for Elasticsearch and Kibana."""

from __future__ import annotations

from argparse import _ArgumentGroup as Group
from pathlib import Path

from slurp.options.parser import DURATION, POSITIVE, argument_type
from slurp.options.values import (
    parse_api_key,
    parse_fingerprint,
    parse_max_disk,
    parse_replicas,
    parse_retention,
    strip_secret,
)


def add_connection_options(group: Group) -> None:
    group.add_argument(
        "--es",
        action="append",
        metavar="URL",
        help="Elasticsearch node, repeatable (default: http://localhost:9200)",
    )
    group.add_argument(
        "--es-user", metavar="NAME", default="elastic", help="Elasticsearch user name (default: elastic)"
    )
    group.add_argument(
        "--es-pass",
        metavar="PASSWORD",
        type=strip_secret,
        default="changeme",
        help="Elasticsearch password; other users see it in the process list, so prefer --es-pass-file "
        "(default: changeme)",
    )
    group.add_argument(
        "--es-pass-file",
        metavar="FILE",
        type=Path,
        help="file with the Elasticsearch password; read again when Elasticsearch rejects it",
    )
    group.add_argument(
        "--es-api-key",
        metavar="KEY",
        type=argument_type(parse_api_key),
        help="encoded Elasticsearch API key, instead of user name and password",
    )
    group.add_argument(
        "--es-api-key-file",
        metavar="FILE",
        type=Path,
        help="file with the encoded API key; read again when Elasticsearch rejects it",
    )
    group.add_argument(
        "--es-ca",
        metavar="FILE",
        type=Path,
        help="CA certificates (PEM) to verify Elasticsearch and Kibana with",
    )
    group.add_argument(
        "--es-ca-fingerprint",
        metavar="HEX",
        type=argument_type(parse_fingerprint),
        help="SHA-256 fingerprint of the CA of Elasticsearch, instead of --es-ca; not used for Kibana",
    )
    group.add_argument(
        "--es-cert",
        metavar="FILE",
        type=Path,
        help="client certificate (PEM) for mutual TLS with Elasticsearch",
    )
    group.add_argument(
        "--es-key",
        metavar="FILE",
        type=Path,
        help="private key (PEM, unencrypted) of --es-cert; not needed if that file contains it",
    )
    group.add_argument(
        "--es-compress",
        choices=["auto", "on", "off"],
        default="auto",
        metavar="WHEN",
        help="gzip compression of requests to Elasticsearch: on, off, or auto: on unless the node is on this "
        "machine (default: auto)",
    )


def add_index_options(group: Group) -> None:
    group.add_argument(
        "--index",
        metavar="NAME",
        default="bluesky-events",
        help="prefix of the daily indices NAME-YYYY.MM.DD (default: bluesky-events)",
    )
    group.add_argument(
        "--retention",
        metavar="TIME",
        type=argument_type(parse_retention),
        default=30,
        help="delete daily indices older than this and skip their events: whole days, 3d or more, or "
        "'forever' (default: 30d)",
    )
    group.add_argument(
        "--max-disk",
        metavar="SIZE",
        type=argument_type(parse_max_disk),
        help="disk space for the daily indices, including space for merges; the oldest day is deleted first: "
        "100MB or more, or 'off' (default: off; with --embedded half of the sum of free disk space and data "
        "of the node, at most 100GB)",
    )
    group.add_argument(
        "--shards",
        metavar="N",
        type=POSITIVE,
        default=1,
        help="primary shards of each daily index (default: 1)",
    )
    group.add_argument(
        "--replicas",
        metavar="N",
        type=argument_type(parse_replicas),
        help="replicas of each shard, or 'auto': 0 in a cluster of one node, else 1 (default: auto)",
    )
    group.add_argument(
        "--refresh",
        metavar="TIME",
        type=DURATION,
        default=5.0,
        help="refresh interval of the daily indices (default: 5s)",
    )
    group.add_argument(
        "--codec",
        choices=["default", "best_compression"],
        default="best_compression",
        metavar="NAME",
        help="index codec: best_compression, or default, which takes half as much disk again "
        "(default: best_compression)",
    )
    group.add_argument(
        "--lexicons",
        metavar="DIR",
        type=Path,
        help="directory of third-party lexicon files (JSON); their records get fields of their own",
    )
    group.add_argument(
        "--setup-only",
        action="store_true",
        help="install index templates, ingest pipeline and lifecycle policy, then exit 0; for administrators",
    )
    group.add_argument(
        "--no-setup",
        action="store_true",
        help="do not change index templates, ingest pipeline and lifecycle policy; for users with few "
        "privileges",
    )


def add_deletion_options(group: Group) -> None:
    group.add_argument(
        "--deletions",
        choices=["apply", "keep"],
        default="apply",
        metavar="WHAT",
        help="content that is deleted at its source: apply removes it, and hides documents of accounts that "
        "are not active; keep changes nothing (default: apply)",
    )
    group.add_argument(
        "--deletions-delay",
        metavar="TIME",
        type=DURATION,
        default=86_400.0,
        help="time for which documents of a deleted account are only hidden (default: 24h)",
    )
    group.add_argument(
        "--deletions-brake",
        metavar="N",
        type=POSITIVE,
        default=20_000,
        help="deleted accounts within an hour above which nothing of them is removed until you confirm "
        "(default: 20000)",
    )
    group.add_argument(
        "--deletions-rate",
        metavar="N",
        type=POSITIVE,
        default=2000,
        help="documents per second that are changed at most (default: 2000)",
    )


def add_trend_options(group: Group) -> None:
    group.add_argument(
        "--appview",
        metavar="URL",
        help="server of Bluesky's public API, for names of accounts and posts that are not stored, or 'off' "
        "(default: https://public.api.bsky.app; off if every --jetstream is on this machine)",
    )
    group.add_argument(
        "--trends-retention",
        metavar="TIME",
        type=argument_type(parse_retention),
        default=35,
        help="delete the hours of trends older than this, not the days: whole days, 3d or more, or 'forever' "
        "(default: 35d)",
    )


def add_kibana_options(group: Group) -> None:
    group.add_argument(
        "--kibana",
        metavar="URL",
        help="Kibana to install data views and dashboards in (default: http://localhost:5601 if every --es "
        "is on this machine, else none)",
    )
    group.add_argument("--no-kibana", action="store_true", help="do not connect to Kibana")
    group.add_argument(
        "--kibana-space",
        metavar="NAME",
        default="",
        help="id of the Kibana space to install in (default: the default space)",
    )
    group.add_argument(
        "--kibana-user",
        metavar="NAME",
        help="Kibana user name (default: the Elasticsearch user, or its API key)",
    )
    group.add_argument(
        "--kibana-pass",
        metavar="PASSWORD",
        type=strip_secret,
        help="Kibana password (default: the Elasticsearch password)",
    )
    group.add_argument(
        "--kibana-pass-file",
        metavar="FILE",
        type=Path,
        help="file with the Kibana password; read again when Kibana rejects it",
    )
    group.add_argument(
        "--kibana-overwrite",
        action="store_true",
        help="replace data views and dashboards at each start, even if they were edited",
    )
