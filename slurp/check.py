"""`--check`: print the effective options and test all connections. It changes nothing and opens no port."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elasticsearch import ApiError, Elasticsearch

from slurp.config import Config
from slurp.elastic import privileges, setup
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.features import Features, detect
from slurp.elastic.readiness import wait_until_ready
from slurp.errors import Exit, Fatal
from slurp.events.position import LIVE
from slurp.jetstream.servers import probe_servers
from slurp.jetstream.subscription import Subscription
from slurp.kibana.client import KibanaClient, NotReady, Rejected, Unauthorized
from slurp.lexicons import Compiled
from slurp.logs import Secrets, printable
from slurp.options.config_file import COMMAND_LINE_ONLY, SECRET_OPTIONS
from slurp.options.definitions import build_parser
from slurp.process import StopSignals
from slurp.proxies import proxies_of

_REQUEST_TIMEOUT = 10.0
# Options whose values are durations in seconds.
_DURATIONS = ("stall-timeout", "refresh", "deletions-delay", "flush", "stats-interval", "wait", "grace")
# Options for which None has a name.
_NONE = {
    "retention": "forever",
    "replicas": "auto",
    "http": "off",
    "appview": "off",
    "trends-retention": "forever",
}
_RESULTS = {
    Exit.DONE: "passed",
    Exit.FAILED: "failed: a server is not reachable or not usable",
    Exit.USAGE: "failed: wrong options, credentials or privileges",
}


class Check:
    """One run of `--check`."""

    def __init__(
        self, config: Config, origins: Mapping[str, str], secrets: Secrets, signals: StopSignals
    ) -> None:
        """`origins` has the origin of each option that is not a default."""
        self._config = config
        self._origins = origins
        self._secrets = secrets
        self._signals = signals
        self._exit = Exit.DONE

    def run(self) -> Exit:
        """Print the options and the result of each test; return the worst exit code of the results."""
        for name, value in effective_options(self._config):
            self._print(f"{f'{name} = {value}':<60}  # {self._origins.get(name, 'default')}")
        self._print("")
        for test in (self._check_files, self._check_jetstream, self._check_elasticsearch, self._check_kibana):
            if self._signals.requested:
                self._fail("stopped by a signal before all tests were done", Exit.FAILED)
                break
            test()
        self._print(f"check: {_RESULTS[self._exit]}")
        return self._exit

    def _ok(self, text: str) -> None:
        self._print(f"ok    {text}")

    def _skip(self, text: str) -> None:
        self._print(f"skip  {text}")

    def _fail(self, text: str, code: Exit) -> None:
        self._exit = max(self._exit, code)
        self._print(f"FAIL  {text}")

    def _print(self, line: str) -> None:
        print(printable(self._secrets.scrub(line)), flush=True)

    def _check_files(self) -> None:
        path = self._config.dead_letter
        if problem := write_problem(path):
            self._fail(f"dead-letter file {path}: {problem}", Exit.USAGE)
        else:
            self._ok(f"dead-letter file {path}: writable")

    def _check_jetstream(self) -> None:
        config = self._config
        for proxy in proxies_of(config.jetstream):
            self._ok(f"Jetstream: connecting through proxy {proxy}")
        protocol = Subscription.of(config).protocol(config.protocol)
        probes = probe_servers(config.jetstream, ca=config.jetstream_ca, protocol=protocol)
        # One of the default servers is enough if it has v2.
        is_optional = "jetstream" not in self._origins and any(one.v2 for one in probes)
        for one in probes:
            if one.times:
                protocols = "v2" if one.v2 else "v1 only"
                self._ok(f"Jetstream {one.url}: {protocols}, handshake in {one.median * 1000:.0f} ms")
            elif is_optional:
                self._skip(f"Jetstream {one.url}: {one.error}; not required, as another server answers")
            else:
                self._fail(f"Jetstream {one.url}: {one.error}", Exit.FAILED)

    def _check_elasticsearch(self) -> None:
        config = self._config
        try:
            compiled = setup.load_lexicons(config)
            if config.embedded and self._is_node_missing():
                return
        except Fatal as error:
            self._fail(str(error), error.code)
            return
        for url in config.es:
            # Each node by itself, without retries: a client of several nodes uses the first that answers.
            node_config = dataclasses.replace(config, es=(url,), wait=0.0)
            elastic = Elastic(node_config, self._secrets)
            try:
                cluster = wait_until_ready(elastic, node_config, threading.Event())
                self._ok(f"Elasticsearch {url}: {cluster}")
                client = elastic.client.options(request_timeout=_REQUEST_TIMEOUT)
                self._check_privileges(client, url, compiled)
            except Fatal as error:
                self._fail(str(error), error.code)
            except FAILURES as error:
                self._fail(f"Elasticsearch {url}: {describe(error)}", Exit.FAILED)
            finally:
                elastic.close()

    def _is_node_missing(self) -> bool:
        """Return whether the worker would start an embedded node. Raises Fatal if it could not."""
        from slurp.embedded.errors import EmbeddedNodeError
        from slurp.embedded.java import find_runtime
        from slurp.embedded.launch import plan_launch

        launch = plan_launch(self._config)
        if launch is None:
            return False
        try:
            java = find_runtime(launch.version).major
        except EmbeddedNodeError as error:
            raise Fatal(f"embedded Elasticsearch {launch.version}: {error}") from None
        self._skip(
            f"Elasticsearch: nothing answers at {self._config.es[0]}; the worker will start "
            f"{launch.version} on Java {java} (--embedded)"
        )
        return True

    def _check_privileges(self, client: Elasticsearch, url: str, compiled: Compiled) -> None:
        """Check the privileges listed in docs/privileges.md.

        If the worker may not install templates, ingest pipeline and policy, check that they exist.
        """
        config = self._config
        features = detect(client)
        role = privileges.setup(config.index) if config.setup_only else privileges.worker(config.index)
        try:
            missing = missing_privileges(client, role, features)
            can_not_set_up = not config.setup_only and missing_privileges(
                client, privileges.worker_with_setup(config.index), features
            )
        except ApiError as error:
            # Without security features every privilege is granted.
            if error.status_code not in (400, 404, 405, 410):
                raise
            self._skip(f"Elasticsearch {url}: privileges cannot be checked ({describe(error)})")
            return
        # docs/privileges.md describes what a worker omits without these.
        optional = {"read_pipeline", "read_ilm"}
        if not config.max_disk:
            optional.add(f"monitor on {config.index}-*")
        if found := [privilege for privilege in missing if privilege in optional]:
            self._ok(f"Elasticsearch {url}: missing optional privileges: {', '.join(found)}")
        if required := [privilege for privilege in missing if privilege not in optional]:
            self._fail(f"Elasticsearch {url}: missing privileges: {', '.join(required)}", Exit.USAGE)
            return
        self._ok(f"Elasticsearch {url}: privileges sufficient")
        if config.no_setup or can_not_set_up:
            read_only = dataclasses.replace(config, no_setup=True)
            try:
                setup.Setup(read_only, compiled).run(client)
            except Fatal as error:
                self._fail(f"Elasticsearch {url}: {error}", error.code)
            else:
                self._ok(f"Elasticsearch {url}: index templates, ingest pipeline and policy exist")

    def _check_kibana(self) -> None:
        config = self._config
        if config.kibana is None:
            self._skip("Kibana: disabled")
            return
        kibana = KibanaClient(config, self._secrets)
        try:
            version = kibana.status()
            kibana.check_space()
            self._ok(f"Kibana {config.kibana}: version {version}")
        except Unauthorized as error:
            self._fail(f"Kibana {config.kibana}: {error}", Exit.USAGE)
        except (NotReady, Rejected) as error:
            if "kibana" in self._origins:
                self._fail(f"Kibana {config.kibana}: {error}", Exit.FAILED)
            else:
                # The default URL is for users who run a Kibana there.
                self._skip(f"Kibana {config.kibana}: {error}; not required, as --kibana is not set")
        finally:
            kibana.close()


def effective_options(config: Config) -> Iterator[tuple[str, str]]:
    """Yield name and value of each option that has a value, in config file syntax; secrets are ***."""
    for action in build_parser()._actions:
        option = action.option_strings[-1]
        name = option.removeprefix("--")
        if option not in COMMAND_LINE_ONLY and (text := _format_value(config, name)) not in (None, ""):
            yield name, str(text)


def _format_value(config: Config, name: str) -> str | None:
    field = name.replace("-", "_")
    if name.endswith("-file"):
        files = (config.es_secret_file, config.kibana_secret_file)
        return next((str(file.path) for file in files if file and file.option == f"--{name}"), None)
    value: Any = getattr(config, "retention_days" if name == "retention" else field)
    if value is None:
        return _NONE.get(name)
    if name in SECRET_OPTIONS:
        return value and "***"
    if name == "max-disk" and value == 0:
        return "off"
    if name in ("retention", "trends-retention"):
        return f"{value}d"
    if name in ("since", "replay-from") and value == LIVE:
        return "live"
    if name in _DURATIONS:
        return f"{value:g}s"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, tuple) and name != "http" else str(value)


def missing_privileges(client: Elasticsearch, role: privileges.Role, features: Features) -> list[str]:
    """Return the privileges of `role` that the user lacks. The request changes nothing."""
    absent = {"manage_ilm": not features.lifecycle, "manage_ingest_pipelines": not features.pipeline}
    cluster = [privilege for privilege in role["cluster"] if not absent.get(privilege)]
    response = client.security.has_privileges(cluster=cluster, index=role["indices"]).body
    if response.get("has_all_requested"):
        return []
    missing = [privilege for privilege, granted in response["cluster"].items() if not granted]
    for index, granted_by_privilege in response["index"].items():
        missing += [f"{one} on {index}" for one, granted in granted_by_privilege.items() if not granted]
    return missing


def write_problem(path: Path) -> str:
    """Return why a file cannot be written, '' if it can. Nothing is created."""
    if path.exists():
        if path.is_dir():
            return "it is a directory"
        return "" if os.access(path, os.W_OK) else "it is not writable by this user"
    folder = next(one for one in path.absolute().parents if one.exists())
    if not folder.is_dir():
        return f"{folder} is not a directory"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"the directory {folder} is not writable"
