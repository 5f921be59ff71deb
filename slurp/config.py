"""What was chosen: the options, checked together, become one frozen `Config`."""

from __future__ import annotations

import argparse
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

import configargparse

from slurp import values as check
from slurp.addresses import Address, is_loopback
from slurp.configfile import FLAGS_ONLY, SECRETS, suggestion
from slurp.errors import Exit, Fatal
from slurp.fill_command import FillCommand
from slurp.logs import for_journal, is_journal
from slurp.options import ENV_PREFIX, Usage, build_parser, config_files, variable
from slurp.user_folders import user_folder
from slurp.values import SecretFile, basic_token, http_url, items_of, jetstream_url

PUBLIC_HOSTS = tuple(f"wss://jetstream.us-{coast}.bsky.network" for coast in ("east", "west"))
# They speak v1 alone and drop events now and then: the probe ranks them after the others.
LEGACY_HOSTS = tuple(
    f"wss://jetstream{n}.us-{coast}.bsky.network" for coast in ("east", "west") for n in (1, 2)
)
KIBANA = "http://localhost:5601"
_FOR_KIBANA = ("kibana-space", "kibana-user", "kibana-pass", "kibana-pass-file", "kibana-overwrite")

# What Kubernetes puts into every container for a Service named skeetslurper, or skeetslurper-something.
_OF_KUBERNETES = re.compile(
    r".*_SERVICE_HOST|.*_SERVICE_PORT(_.+)?|.+_PORT(_\d+_[A-Z]+(_[A-Z]+)?)?"
).fullmatch
# Which names count as a slip of the pen: ES_PASSWORD for ES_PASS, and not MEM_LIMIT for anything.
_SLIP = 0.75


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
    """0: no bound. None: chosen by the service."""
    shards: int
    replicas: int | None
    refresh: float
    codec: str
    lexicons: Path | None
    setup_only: bool
    no_setup: bool

    kibana: str | None
    """None: it gets nothing."""
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

    fill: FillCommand = field(repr=False, compare=False)
    """The command for a second worker with these options."""
    warnings: tuple[str, ...]
    """What is questionable in these options, to be logged once there is a log."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value known at start; logs are scrubbed of them."""
        basic = (
            basic_token(self.es_user, self.es_pass),
            basic_token(self.kibana_user or self.es_user, self.kibana_pass),
        )
        return tuple(s for s in (self.es_pass, self.es_api_key, self.kibana_pass, *basic) if s)


def parse(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The `Config` of a command line. What is wrong ends the program: one line, exit code 2."""
    return parse_with_origins(argv, environ)[0]


def parse_with_origins(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Config, dict[str, str]]:
    """As `parse`, and where the value of each option comes from, see `origins`."""
    environ = os.environ if environ is None else environ
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser(config_files(environ))
    try:
        known, strange = _variables(environ, parser)
        options = parser.parse_args(args=argv, env_vars=known)
        fill = FillCommand.of(parser, argv, vars(options), {f"--{one}": variable(one) for one in SECRETS})
        config = _config(options, environ, _config_files_with_secrets(parser), strange, fill)
        return config, origins(parser, argv)
    except OSError as error:
        if error.filename is None:
            raise  # not of a file of options: `--print-completion` could not write
        problem = f"can't read {error.filename}: {error.strerror}"
    except (Usage, ValueError, Fatal) as error:
        problem = _with_origin(str(error), origins(parser, argv))
    line = f"{parser.prog}: {problem}; --help lists the options"
    # There is no log yet.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{for_journal(line, logging.ERROR) if is_journal(sys.stderr) else line}\n")
    raise SystemExit(Exit.USAGE)


def origins(parser: configargparse.ArgumentParser, argv: Sequence[str]) -> dict[str, str]:
    """Return where the value of each option comes from, by its name without dashes; defaults are left out.

    To be called once `parser` has parsed `argv`, also when it failed.
    """
    found: dict[str, str] = {}
    for source, settings in getattr(parser, "_source_to_settings", {}).items():
        kind, _, file = source.partition("|")
        if kind == "config_file":
            lines = parser._config_file_parser.lines
            found |= {name: f"{file}, line {lines[file, name]}" for name in settings}
        elif kind == "environment_variables":
            found |= {action.option_strings[-1][2:]: name for name, (action, _) in settings.items()}
    # Last: they win.
    options = {word.partition("=")[0] for word in argv}
    flags = {name for action in parser._actions for name in action.option_strings if name in options}
    return found | {name[2:]: "command line" for name in flags}


def _with_origin(problem: str, found: Mapping[str, str]) -> str:
    """Add to an error about an option the file or variable that the option comes from."""
    named = re.match(r"--([a-z-]+)", problem)
    origin = found.get(named[1], "") if named else ""
    return problem if origin in ("", "command line") else f"{problem} ({origin})"


def _variables(
    environ: Mapping[str, str], parser: configargparse.ArgumentParser
) -> tuple[dict[str, str], str]:
    """Return the variables that are options, and a warning of those that only look like it, '' without such.

    Other programs set such names, so they do not stop the start. Raises Usage for a misspelled option, as the
    worker would run without it.
    """
    # configargparse names the variables only while it parses.
    options = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    known = {variable(option) for option in options - {*FLAGS_ONLY}}
    strange = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)
    for name in strange:
        if name == variable("--config"):
            raise Usage(f"{name}: --config is a flag only")
        short = [one.removeprefix(ENV_PREFIX) for one in known]
        if not _OF_KUBERNETES(name) and (hint := suggestion(name.removeprefix(ENV_PREFIX), short, _SLIP)):
            raise Usage(f"unknown environment variable {name}{hint.replace('mean ', f'mean {ENV_PREFIX}')}")
    warning = f"not options, ignored: environment variables {', '.join(strange)}" if strange else ""
    if any(map(_OF_KUBERNETES, strange)):
        warning += " (Kubernetes sets such for a Service; enableServiceLinks: false leaves them out)"
    return {name: value for name, value in environ.items() if name in known}, warning


def _config_files_with_secrets(parser: configargparse.ArgumentParser) -> dict[Path, str]:
    """Return the config files that set a secret, each with the option of one."""
    found: dict[Path, str] = {}
    for source, settings in parser.get_source_to_settings_dict().items():
        kind, _, name = source.partition("|")
        if kind == "config_file" and (options := [one for one in SECRETS if one in settings]):
            found[Path(name)] = f"--{options[0]}"
    return found


def _config(
    options: argparse.Namespace,
    environ: Mapping[str, str],
    with_secrets: Mapping[Path, str],
    strange: str,
    fill: FillCommand,
) -> Config:
    values = vars(options)
    values.pop("config_file", None)
    for_kibana = [f"--{name}" for name in _FOR_KIBANA if values[name.replace("-", "_")]]
    holders = dict(with_secrets)
    for name in SECRETS:
        if (path := values[f"{name}_file".replace("-", "_")]) is not None:
            holders[path] = f"--{name}-file"
    if values["es_key"] is not None:
        holders[values["es_key"]] = "--es-key"
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    exposures = [check.exposure(option, path, credentials) for path, option in holders.items()]
    values.update(_secrets(values))
    for name in ("es_user", "es_pass", "kibana_user", "kibana_pass"):
        check.text(values[name], f"--{name.replace('_', '-')}")
    if values["embedded_data"] is not None:
        values["embedded_data"] = check.absolute(values["embedded_data"], "--embedded-data")
    for name in ("es_ca", "jetstream_ca"):
        if values[name] is not None:
            check.certificates(values[name], f"--{name.replace('_', '-')}")
    check.client_certificate(values["es_cert"], values["es_key"])
    if values["es_ca"] is not None and values["es_ca_fingerprint"] is not None:
        raise ValueError("--es-ca and --es-ca-fingerprint: give one of them")
    if values["buffer"] < values["batch"]:
        raise ValueError(f"--buffer {values['buffer']} holds less than one --batch of {values['batch']}")
    if values["setup_only"] and values["no_setup"]:
        raise ValueError("--setup-only and --no-setup contradict each other")
    if values["lexicons"] is not None and not values["lexicons"].is_dir():
        raise ValueError(f"--lexicons: there is no directory {values['lexicons']}")
    for name in ("flush", "refresh", "stall_timeout", "stats_interval", "grace"):
        if values[name] <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be more than nothing")
    jetstream = tuple(map(jetstream_url, items_of(values["jetstream"]))) or (
        PUBLIC_HOSTS if values["redundant"] else PUBLIC_HOSTS + LEGACY_HOSTS
    )
    # Of each host there is one checkpoint, whatever the scheme.
    hosts = {url.partition("://")[2] for url in jetstream}
    if values["redundant"] and len(hosts) < max(2, len(jetstream)):
        raise ValueError("--redundant needs --jetstream at least twice, each time another host")
    if values["worker_name"]:
        check.worker_name(values["worker_name"])

    retention_days = values.pop("retention")
    es = tuple(http_url(url, "--es") for url in items_of(values["es"])) or ("http://localhost:9200",)
    for name in ("es_ca_fingerprint", "es_cert"):
        if values[name] is not None and not any(url.startswith("https:") for url in es):
            raise ValueError(f"--{name.replace('_', '-')} is for https, and --es is http")
    kibana = _kibana(values, es)
    warnings = list(filter(None, (strange, *exposures)))
    if kibana is None and not values["no_kibana"] and for_kibana:
        warnings.append(
            f"{', '.join(for_kibana)}: no effect, as Kibana is disabled (--es is not on this machine; "
            "use --kibana URL)"
        )
    return Config(
        **{
            **values,
            "jetstream": jetstream,
            "collections": check.collections(values["collections"]),
            "dids": check.dids(values["dids"]),
            "es": es,
            "kibana": kibana,
            "kibana_space": check.space_id(values["kibana_space"]),
            "index": check.index_name(values["index"]),
            "http": check.http_address(values["http"], embedded=values["embedded"]),
            "dead_letter": values["dead_letter"] or _default_dead_letter(environ),
            "retention_days": retention_days,
            "fill": fill,
            "warnings": tuple(warnings),
        }
    )


def _kibana(values: Mapping[str, Any], es: Sequence[str]) -> str | None:
    """Return the URL of Kibana. The default is for a Kibana beside Elasticsearch on this machine: where
    Elasticsearch is elsewhere, its password has no business with what listens on a port here.
    """
    if values["no_kibana"]:
        return None
    if values["kibana"] is not None:
        return http_url(values["kibana"], "--kibana")
    return KIBANA if all(is_loopback(urlsplit(url).hostname or "") for url in es) else None


def _secrets(values: dict[str, Any]) -> dict[str, Any]:
    """The secrets, from their files where there are some; an API key comes before user and password."""
    es_file = _read(values, "es_pass")
    if values["es_api_key"] and values["es_api_key_file"]:
        raise ValueError("--es-api-key and --es-api-key-file: give one of them")
    key_file = _read(values, "es_api_key", check.api_key)
    kibana_file = _read(values, "kibana_pass")
    has_key = bool(values["es_api_key"])
    kibana_by_key = has_key and not values["kibana_user"]
    if values["kibana_pass"] is None:
        # Kibana is entered as Elasticsearch is, with what its file may hold later as well.
        values["kibana_pass"], kibana_file = values["es_pass"], key_file if kibana_by_key else es_file
    elif kibana_by_key:
        raise ValueError("--kibana-pass beside --es-api-key needs --kibana-user")
    return {"es_secret_file": key_file if has_key else es_file, "kibana_secret_file": kibana_file}


def _read(values: dict[str, Any], name: str, valid: Callable[[str], str] = str) -> SecretFile | None:
    path = values.pop(f"{name}_file")
    if path is None:
        return None
    file = SecretFile(f"--{name.replace('_', '-')}-file", path, valid)
    values[name] = file.read()
    return file


def _default_dead_letter(environ: Mapping[str, str]) -> Path:
    # systemd gives a list where a unit names several state directories.
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if state:
        return Path(state) / "dead-letters.jsonl"
    data = user_folder("XDG_DATA_HOME", ".local/share", "give --dead-letter", environ)
    return data / "skeetslurper" / "dead-letters.jsonl"
