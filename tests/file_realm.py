"""Users and roles of the file realm. Native ones need an analysis filter that the embedded node lacks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elasticsearch import AuthenticationException, Elasticsearch

from slurp.embedded.distribution import ensure_distribution
from slurp.embedded.java import find_runtime
from slurp.embedded.node import EmbeddedNode

# Seconds; Elasticsearch reads changed files every 5 s.
_RELOAD_TIMEOUT = 30.0


class FileRealm:
    """The users and roles of a running node."""

    def __init__(self, node: EmbeddedNode) -> None:
        self._node = node
        self._config = node.data / "config"

    def roles(self, roles: Mapping[str, Any]) -> None:
        """Replace all roles. Each one is a line, as Elasticsearch parses the file; JSON is valid YAML."""
        lines = [f"{name}: {json.dumps(body)}\n" for name, body in roles.items()]
        _overwrite(self._config / "roles.yml", "".join(lines))

    def add(self, name: str, password: str, role: str) -> None:
        """Add a user, replacing one of the same name, and wait until the node has loaded it."""
        users = (self._config / "users").read_text("utf-8").splitlines()
        if any(line.startswith(f"{name}:") for line in users):  # of an earlier test on this node
            self._tool("userdel", name)
        self._tool("useradd", name, "-p", password, "-r", role)
        self.wait(name, password)

    def change_password(self, name: str, password: str) -> None:
        self._tool("passwd", name, "-p", password)

    def wait(self, name: str, password: str) -> None:
        """Wait until the node has loaded a user with password and role."""
        deadline = time.monotonic() + _RELOAD_TIMEOUT
        with self.client(name, password) as client:
            while True:
                try:
                    if client.security.authenticate()["roles"]:
                        return
                except AuthenticationException:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(0.2)

    def wait_for_privilege(
        self, name: str, password: str, index: str, privilege: str, granted: bool = True
    ) -> None:
        """Wait until the node has loaded the roles: the user has a privilege on an index, or lost it."""
        deadline = time.monotonic() + _RELOAD_TIMEOUT
        with self.client(name, password) as client:
            while True:
                wanted = [{"names": [index], "privileges": [privilege]}]
                if client.security.has_privileges(index=wanted)["has_all_requested"] == granted:
                    return
                assert time.monotonic() < deadline, f"{name}: no change of {privilege}"
                time.sleep(0.2)

    def client(self, name: str, password: str) -> Elasticsearch:
        return Elasticsearch(self._node.url, basic_auth=(name, password), max_retries=0, request_timeout=30)

    def _tool(self, *arguments: str) -> None:
        distribution, runtime = ensure_distribution(self._node.version), find_runtime(self._node.version)
        environment = {
            **os.environ,
            "ES_JAVA_HOME": str(runtime.home),
            "ES_PATH_CONF": str(self._config),
        }
        subprocess.run(
            [str(distribution / "bin" / "elasticsearch-users"), *arguments],
            check=True,
            capture_output=True,
            env=environment,
        )


def _overwrite(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
