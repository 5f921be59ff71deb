"""`--check`: shows the effective options and connects to everything. It changes nothing and takes no port."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from elasticsearch import ApiError, Elasticsearch

from slurp.config import Config
from slurp.configfile import FLAGS_ONLY, SECRETS
from slurp.elastic import privileges, setup
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.features import Features, detect
from slurp.elastic.readiness import wait_until_ready
from slurp.errors import Exit, Fatal
from slurp.events.position import LIVE
from slurp.jetstream.servers import answers, probe
from slurp.jetstream.subscription import Subscription
from slurp.kibana.client import Kibana, NotReady, Refused, Unauthorized
from slurp.lexicons import Compiled
from slurp.logs import Secrets, printable
from slurp.options import build_parser
from slurp.process import StopSignals
from slurp.proxies import proxies_of

_WITHIN = 10.0
# Durations, which are kept as seconds.
_TIMES = ("stall-timeout", "refresh", "flush", "stats-interval", "wait", "grace")
# Where no value means something.
_NONE = {"retention": "forever", "replicas": "auto", "http": "off"}
_ALL_RIGHTS = "has_all_requested"


class Check:
    """One run. `run` returns the exit code: that of the worst finding."""

    def __init__(
        self, config: Config, origins: Mapping[str, str], secrets: Secrets, signals: StopSignals
    ) -> None:
        """`origins` says where each option comes from; those that are missing have their default."""
        self._config = config
        self._origins = origins
        self._secrets = secrets
        self._signals = signals
        self._worst = Exit.DONE

    def run(self) -> Exit:
        for name, value in effective(self._config):
            self._say(f"{f'{name} = {value}':<60}  # {self._origins.get(name, 'default')}")
        self._say("")
        for step in (self._check_files, self._check_jetstream, self._check_elasticsearch, self._check_kibana):
            if self._signals.requested:
                self._note("stopped before the end", Exit.FAILED)
                break
            step()
        verdict = {Exit.DONE: "all good", Exit.FAILED: "something can't be reached or used"}
        self._say(f"check: {verdict.get(self._worst, 'wrong options, credentials or privileges')}")
        return self._worst

    def _say(self, line: str) -> None:
        print(printable(self._secrets.scrub(line)), flush=True)

    def _note(self, text: str, code: Exit = Exit.DONE) -> None:
        self._worst = max(self._worst, code)
        self._say(f"{'ok   ' if code is Exit.DONE else 'FAIL '} {text}")

    def _check_files(self) -> None:
        letters = self._config.dead_letter
        if problem := unwritable(letters):
            self._note(f"dead-letter file {letters}: {problem}", Exit.USAGE)
        else:
            self._note(f"dead-letter file {letters} can be written")

    def _check_jetstream(self) -> None:
        config = self._config
        for proxy in proxies_of(config.jetstream):
            self._note(f"Jetstream is reached through proxy {proxy}")
        protocol = Subscription.of(config).protocol(config.protocol)
        probes = probe(config.jetstream, ca=config.jetstream_ca, protocol=protocol)
        # Of the default servers one with v2 is enough.
        is_optional = "jetstream" not in self._origins and any(one.v2 for one in probes)
        for one in probes:
            if one.times:
                wire = "v2" if one.v2 else "v1 only"
                self._note(f"Jetstream {one.url}: {wire}, a handshake takes {one.median * 1000:.0f} ms")
            elif is_optional:
                self._note(f"Jetstream {one.url}: {one.error}; not needed while another server answers")
            else:
                self._note(f"Jetstream {one.url}: {one.error}", Exit.FAILED)

    def _check_elasticsearch(self) -> None:
        config = self._config
        try:
            compiled = setup.load_lexicons(config)
            if config.embedded and self._would_start_a_node():
                return
        except Fatal as error:
            self._note(str(error), error.code)
            return
        for url in config.es:
            # Each node by itself, once: a client of several takes the first that answers.
            one = dataclasses.replace(config, es=(url,), wait=0.0)
            elastic = Elastic(one, self._secrets)
            try:
                found = wait_until_ready(elastic, one, threading.Event())
                self._note(f"Elasticsearch {url}: {found}")
                self._check_rights(elastic.client.options(request_timeout=_WITHIN), url, compiled)
            except Fatal as error:
                self._note(str(error), error.code)
            except FAILURES as error:
                self._note(f"Elasticsearch {url}: {describe(error)}", Exit.FAILED)
            finally:
                elastic.close()

    def _would_start_a_node(self) -> bool:
        from slurp.embedded.data_folder import DEFAULT_VERSION
        from slurp.embedded.errors import EmbeddedNodeError
        from slurp.embedded.java import find_runtime

        url = urlsplit(self._config.es[0])
        if answers(url.hostname or "localhost", url.port or 9200):
            return False
        version = self._config.embedded_version or DEFAULT_VERSION
        try:
            java = find_runtime(version).major
        except EmbeddedNodeError as error:
            raise Fatal(f"embedded Elasticsearch {version}: {error}") from None
        self._note(
            f"Elasticsearch: nothing answers at {self._config.es[0]}; "
            f"--embedded starts {version} on Java {java}"
        )
        return True

    def _check_rights(self, client: Elasticsearch, url: str, compiled: Compiled) -> None:
        """Ask for the privileges that docs/privileges.md names, and for the set-up where we may not do it."""
        config = self._config
        features = detect(client)
        needed = privileges.setup(config.index) if config.setup_only else privileges.worker(config.index)
        try:
            missing = missing_rights(client, needed, features)
            fewer = not config.setup_only and missing_rights(
                client, privileges.worker_with_setup(config.index), features
            )
        except ApiError as error:
            # Without the security features nobody lacks a right.
            if error.status_code not in (400, 404, 405, 410):
                raise
            self._note(f"Elasticsearch {url}: privileges can't be asked about ({describe(error)})")
            return
        # docs/privileges.md says what a worker does without these.
        spare = {"read_pipeline", "read_ilm", *(() if config.max_disk else (f"monitor on {config.index}-*",))}
        if without := [right for right in missing if right in spare]:
            self._note(f"Elasticsearch {url}: without {', '.join(without)}, which a worker can do without")
        missing = [right for right in missing if right not in spare]
        if missing:
            self._note(f"Elasticsearch {url}: missing privileges: {', '.join(missing)}", Exit.USAGE)
            return
        self._note(f"Elasticsearch {url}: the privileges suffice")
        if config.no_setup or fewer:
            looking = dataclasses.replace(config, no_setup=True)
            try:
                setup.Setup(looking, compiled).run(client)
            except Fatal as error:
                self._note(f"Elasticsearch {url}: {error}", error.code)
            else:
                self._note(f"Elasticsearch {url}: the set-up is there")

    def _check_kibana(self) -> None:
        config = self._config
        if config.kibana is None:
            self._note("Kibana: not used")
            return
        kibana = Kibana(config, self._secrets)
        try:
            version = kibana.status()
            kibana.check_space()
            self._note(f"Kibana {config.kibana}: version {version}")
        except Unauthorized as error:
            self._note(f"Kibana {config.kibana}: {error}", Exit.USAGE)
        except (NotReady, Refused) as error:
            # Nobody asked for it: the default is for those who have one.
            code = Exit.FAILED if "kibana" in self._origins else Exit.DONE
            self._note(f"Kibana {config.kibana}: {error}{'' if code else '; it is optional'}", code)
        finally:
            kibana.close()


def effective(config: Config) -> Iterator[tuple[str, str]]:
    """Yield name and value of each option that has one, as a config file has them; secrets as ***."""
    for action in build_parser()._actions:
        option = action.option_strings[-1]
        name = option.removeprefix("--")
        if option not in FLAGS_ONLY and (text := _shown(config, name)) not in (None, ""):
            yield name, str(text)


def _shown(config: Config, name: str) -> str | None:
    field = name.replace("-", "_")
    if name.endswith("-file"):
        files = (config.es_secret_file, config.kibana_secret_file)
        return next((str(file.path) for file in files if file and file.option == f"--{name}"), None)
    value: Any = getattr(config, "retention_days" if name == "retention" else field)
    if value is None:
        return _NONE.get(name)
    if name in SECRETS:
        return value and "***"
    if name == "max-disk" and value == 0:
        return "off"
    if name == "retention":
        return f"{value}d"
    if name in ("since", "replay-from") and value == LIVE:
        return "live"
    if name in _TIMES:
        return f"{value:g}s"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, tuple) and name != "http" else str(value)


def missing_rights(client: Elasticsearch, role: privileges.Role, features: Features) -> list[str]:
    """Return which privileges of `role` we lack. Asking for them changes nothing."""
    absent = {"manage_ilm": not features.lifecycle, "manage_ingest_pipelines": not features.pipeline}
    cluster = [right for right in role["cluster"] if not absent.get(right)]
    answer = client.security.has_privileges(cluster=cluster, index=role["indices"]).body
    if answer.get(_ALL_RIGHTS):
        return []
    lacking = [right for right, granted in answer["cluster"].items() if not granted]
    for index, rights in answer["index"].items():
        lacking += [f"{right} on {index}" for right, granted in rights.items() if not granted]
    return lacking


def unwritable(path: Path) -> str:
    """Return why a file can't be written, '' when it can; nothing is created."""
    if path.exists():
        if path.is_dir():
            return "it is a directory"
        return "" if os.access(path, os.W_OK) else "it can't be written by this user"
    folder = next(one for one in path.absolute().parents if one.exists())
    if not folder.is_dir():
        return f"{folder} is not a directory"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"nothing can be created in {folder}"
