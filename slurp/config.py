"""The configuration of the worker: all options, validated together, as one frozen `Config`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slurp.addresses import Address, is_loopback
from slurp.errors import Exit, Fatal
from slurp.logs import for_journal, is_journal
from slurp.options.config_file import SECRET_OPTIONS
from slurp.options.definitions import build_parser, config_files
from slurp.options.parser import UsageError
from slurp.options.sources import OptionSources, environment_options
from slurp.options.values import (
    SecretFile,
    absolute_path,
    basic_token,
    check_ca_file,
    check_client_certificate,
    check_utf8,
    check_worker_name,
    exposure_warning,
    parse_api_key,
    parse_bearer_token,
    parse_collections,
    parse_dids,
    parse_http_address,
    parse_http_url,
    parse_index_name,
    parse_jetstream_url,
    parse_space_id,
    split_list,
)
from slurp.replay_command import ReplayCommand
from slurp.user_folders import user_folder

PUBLIC_HOSTS = tuple(f"wss://jetstream.us-{coast}.bsky.network" for coast in ("east", "west"))
# These support protocol v1 only and sometimes drop events: the probe ranks them after the others.
LEGACY_HOSTS = tuple(
    f"wss://jetstream{n}.us-{coast}.bsky.network" for coast in ("east", "west") for n in (1, 2)
)
ELASTICSEARCH = "http://localhost:9200"
KIBANA = "http://localhost:5601"
APPVIEW = "https://public.api.bsky.app:443"
# Options without effect if Kibana is not used.
_KIBANA_OPTIONS = ("kibana-space", "kibana-user", "kibana-pass", "kibana-pass-file", "kibana-overwrite")


@dataclass(frozen=True)
class Config:
    """The options of a run. Durations are in seconds, sizes in bytes; starts are cursors or LIVE."""

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
    fill_gaps: str
    jetstream_api_key: str | None = field(repr=False)
    archive_spool: Path

    es: tuple[str, ...]
    es_user: str
    es_pass: str = field(repr=False)
    es_api_key: str | None = field(repr=False)
    es_secret_file: SecretFile | None
    es_ca: Path | None
    es_ca_fingerprint: str | None
    es_cert: Path | None
    es_key: Path | None
    es_compress: str
    index: str
    retention_days: int | None
    max_disk: int | None
    """0: no limit. None: the default, which the service chooses if it starts an embedded node."""
    deletions: str
    deletions_delay: float
    deletions_brake: int
    deletions_rate: int
    shards: int
    replicas: int | None
    refresh: float
    codec: str
    lexicons: Path | None
    setup_only: bool
    no_setup: bool

    appview: str | None
    """None: no names are looked up."""
    trends_retention: int | None
    """Days; None: forever."""

    kibana: str | None
    """None: Kibana is not used."""
    no_kibana: bool
    kibana_space: str
    kibana_user: str | None
    kibana_pass: str = field(repr=False)
    kibana_secret_file: SecretFile | None
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

    check: bool

    replay_command: ReplayCommand = field(repr=False, compare=False)
    """The command that reads a period again in a second worker with these options."""
    warnings: tuple[str, ...]
    """Warnings about the options, to be logged once logging is set up."""

    @property
    def applies_deletions(self) -> bool:
        """Whether content that is deleted at its source is removed (--deletions)."""
        return self.deletions == "apply"

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets known at startup, which are removed from log messages."""
        basic = (
            basic_token(self.es_user, self.es_pass),
            basic_token(self.kibana_user or self.es_user, self.kibana_pass),
        )
        keys = (self.es_api_key, self.jetstream_api_key)
        return tuple(s for s in (self.es_pass, *keys, self.kibana_pass, *basic) if s)


def parse(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Return the configuration from a command line, the environment and the config files.

    `argv` has no program name. An error prints one line and raises SystemExit with exit code 2.
    """
    return parse_with_origins(argv, environ)[0]


def parse_with_origins(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Config, dict[str, str]]:
    """Return the configuration as `parse` does, and the origin of each option that is not a default."""
    environ = os.environ if environ is None else environ
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser(config_files(environ))
    try:
        variables, warning = environment_options(environ, parser)
        options = parser.parse_args(args=argv, env_vars=variables)
        sources = OptionSources.of(parser, argv)
        return _build(vars(options), environ, sources, warning), sources.origins
    except OSError as error:
        if error.filename is None:
            raise  # not about a config file: `--print-completion` could not write
        problem = f"cannot read config file {error.filename}: {error.strerror}"
    except (UsageError, ValueError, Fatal) as error:
        problem = _with_origin(str(error), OptionSources.of(parser, argv).origins)
    line = f"{parser.prog}: {problem}; --help lists the options"
    # Logging is not set up yet.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{for_journal(line, logging.ERROR) if is_journal(sys.stderr) else line}\n")
    raise SystemExit(Exit.USAGE)


def _with_origin(problem: str, origins: Mapping[str, str]) -> str:
    """Add the file and line, or the variable, to an error message that starts with an option."""
    option = re.match(r"--([a-z-]+)", problem)
    origin = origins.get(option[1], "") if option else ""
    return problem if origin in ("", "command line") else f"{problem} ({origin})"


def _build(
    values: dict[str, Any], environ: Mapping[str, str], sources: OptionSources, warning: str
) -> Config:
    """Return the configuration from the values of all options. Raises ValueError or Fatal."""
    values.pop("config_file", None)
    kibana_options = [f"--{name}" for name in _KIBANA_OPTIONS if values[_field(name)]]
    exposures = _exposures(values, environ, sources)
    values.update(_resolve_secrets(values))
    _check_values(values)
    if values["embedded_data"] is not None:
        values["embedded_data"] = absolute_path(values["embedded_data"], "--embedded-data")
    if values["jetstream_api_key"] is not None and not values["jetstream"]:
        raise ValueError("--jetstream-api-key requires --jetstream, the servers that the key is for")
    values["jetstream"] = _jetstream(values)
    values["dead_letter"] = values["dead_letter"] or _default_dead_letter(environ)
    values["archive_spool"] = values["archive_spool"] or values["dead_letter"].with_name("archive")
    values["es"] = _elasticsearch(values)
    values["kibana"] = _kibana(values)
    values["appview"] = _appview(values)
    values["retention_days"] = values.pop("retention")
    warnings = [one for one in (warning, *exposures) if one]
    if values["kibana"] is None and not values["no_kibana"] and kibana_options:
        warnings.append(
            f"{', '.join(kibana_options)}: no effect, as Kibana is disabled (--es is not on this machine; "
            "use --kibana URL)"
        )
    return Config(
        **{
            **values,
            "collections": parse_collections(values["collections"]),
            "dids": parse_dids(values["dids"]),
            "kibana_space": parse_space_id(values["kibana_space"]),
            "index": parse_index_name(values["index"]),
            "http": parse_http_address(values["http"], embedded=values["embedded"]),
            "replay_command": ReplayCommand.of(
                sources, values["worker_name"], is_redundant=values["redundant"]
            ),
            "warnings": tuple(warnings),
        }
    )


def _field(option: str) -> str:
    return option.replace("-", "_")


def _exposures(values: Mapping[str, Any], environ: Mapping[str, str], sources: OptionSources) -> list[str]:
    """Return warnings about files with secrets that other users can read."""
    files = dict(sources.files_with_secrets)
    for name in SECRET_OPTIONS:
        if (path := values[f"{_field(name)}_file"]) is not None:
            files[path] = f"--{name}-file"
    if values["es_key"] is not None:
        files[values["es_key"]] = "--es-key"
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    found = [exposure_warning(option, path, credentials) for path, option in files.items()]
    return [one for one in found if one is not None]


def _resolve_secrets(values: dict[str, Any]) -> dict[str, Any]:
    """Read the files with secrets into `values`, and return the two files to read again later.

    An API key has precedence over user name and password.
    """
    es_file = _read_secret_file(values, "es-pass")
    for name in ("es-api-key", "jetstream-api-key"):
        if values[_field(name)] and values[f"{_field(name)}_file"]:
            raise ValueError(f"--{name} and --{name}-file are mutually exclusive (use one of them)")
    key_file = _read_secret_file(values, "es-api-key", parse_api_key)
    kibana_file = _read_secret_file(values, "kibana-pass")
    _read_secret_file(values, "jetstream-api-key", parse_bearer_token)
    has_key = bool(values["es_api_key"])
    kibana_uses_key = has_key and not values["kibana_user"]
    if values["kibana_pass"] is None:
        # Kibana gets the credentials of Elasticsearch, also those that their file has later.
        values["kibana_pass"], kibana_file = values["es_pass"], key_file if kibana_uses_key else es_file
    elif kibana_uses_key:
        raise ValueError("--kibana-pass together with --es-api-key requires --kibana-user")
    return {"es_secret_file": key_file if has_key else es_file, "kibana_secret_file": kibana_file}


def _read_secret_file(
    values: dict[str, Any], name: str, parse_secret: Callable[[str], str] = str
) -> SecretFile | None:
    """Replace the option NAME-file in `values` by the secret in that file, as the value of NAME."""
    path = values.pop(f"{_field(name)}_file")
    if path is None:
        return None
    file = SecretFile(f"--{name}-file", path, parse_secret)
    values[_field(name)] = file.read()
    return file


def _check_values(values: Mapping[str, Any]) -> None:
    """Raise ValueError for values that cannot be used, alone or together."""
    for name in ("es-user", "es-pass", "kibana-user", "kibana-pass"):
        check_utf8(values[_field(name)], f"--{name}")
    for name in ("es-ca", "jetstream-ca"):
        if values[_field(name)] is not None:
            check_ca_file(values[_field(name)], f"--{name}")
    check_client_certificate(values["es_cert"], values["es_key"])
    if values["es_ca"] is not None and values["es_ca_fingerprint"] is not None:
        raise ValueError("--es-ca and --es-ca-fingerprint are mutually exclusive (use one of them)")
    if values["buffer"] < values["batch"]:
        raise ValueError(f"--buffer {values['buffer']} must not be less than --batch {values['batch']}")
    if values["setup_only"] and values["no_setup"]:
        raise ValueError("--setup-only and --no-setup are mutually exclusive (use one of them)")
    if values["lexicons"] is not None and not values["lexicons"].is_dir():
        raise ValueError(f"--lexicons: no such directory: {values['lexicons']}")
    for name in ("flush", "refresh", "stall-timeout", "stats-interval", "grace"):
        if values[_field(name)] <= 0:
            raise ValueError(f"--{name} must be greater than zero")
    if values["worker_name"]:
        check_worker_name(values["worker_name"])


def _jetstream(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the URLs of the Jetstream servers."""
    default = PUBLIC_HOSTS if values["redundant"] else PUBLIC_HOSTS + LEGACY_HOSTS
    urls = tuple(map(parse_jetstream_url, split_list(values["jetstream"]))) or default
    # Checkpoints are per host, whatever the scheme of its URL.
    hosts = {url.partition("://")[2] for url in urls}
    if values["redundant"] and len(hosts) < max(2, len(urls)):
        raise ValueError("--redundant requires two or more --jetstream with different hosts")
    return urls


def _elasticsearch(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the URLs of the Elasticsearch nodes."""
    urls = tuple(parse_http_url(url, "--es") for url in split_list(values["es"])) or (ELASTICSEARCH,)
    for name in ("es-ca-fingerprint", "es-cert"):
        if values[_field(name)] is not None and not any(url.startswith("https:") for url in urls):
            raise ValueError(f"--{name} requires an https:// URL in --es")
    return urls


def _appview(values: Mapping[str, Any]) -> str | None:
    """Return the URL of the AppView, None if it is not used: a simulated network has accounts of its own."""
    if values["appview"] == "off":
        return None
    if values["appview"] is not None:
        return parse_http_url(values["appview"], "--appview")
    is_simulated = all(is_loopback(urlsplit(url).hostname or "") for url in values["jetstream"])
    return None if is_simulated else APPVIEW


def _kibana(values: Mapping[str, Any]) -> str | None:
    """Return the URL of Kibana, None if it is not used.

    The default is used only if all of Elasticsearch is on this machine: otherwise the password of a remote
    cluster would be sent to any program that listens on port 5601 here.
    """
    if values["no_kibana"]:
        return None
    if values["kibana"] is not None:
        return parse_http_url(values["kibana"], "--kibana")
    return KIBANA if all(is_loopback(urlsplit(url).hostname or "") for url in values["es"]) else None


def _default_dead_letter(environ: Mapping[str, str]) -> Path:
    # systemd sets a list if a unit has several state directories.
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if state:
        return Path(state) / "dead-letters.jsonl"
    data = user_folder("XDG_DATA_HOME", ".local/share", "give --dead-letter", environ)
    return data / "skeetslurper" / "dead-letters.jsonl"
