"""The folder of one node: its files, and the configuration written into it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurp.embedded.data_folder import FLOOD_STAGE, HIGH, LOW, default_max_disk
from slurp.embedded.errors import EmbeddedNodeError
from slurp.embedded.java import Runtime, parse_version
from slurp.embedded.run_as_user import own_files

_CLUSTER = "skeetslurper-embedded"
# Elasticsearch refers to a log with the name of the cluster when it fails.
_LOG4J2 = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:es.logs.base_path}/skeetslurper-embedded.log
appender.file.filePattern = ${sys:es.logs.base_path}/skeetslurper-embedded-%i.log.gz
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""
# Lines of the distribution's jvm.options to omit: a log of every garbage collection, a heap dump when
# memory runs out, and files in the distribution's own folder.
_UNWANTED_JVM_OPTIONS = re.compile(r"gc\.log|HeapDump|ErrorFile")
_VECTOR_MODULE = "jdk.incubator.vector"
_TLS_SETTING = "xpack.security.http.ssl.keystore.secure_password"


@dataclass(frozen=True)
class Installation:
    """The programs that run a node."""

    distribution: Path
    runtime: Runtime
    prefix: list[str]
    """Command prefix to drop root; see `run_as_user`."""


@dataclass(frozen=True)
class Listener:
    """Where a node listens."""

    host: str
    port: int
    transport_port: int


class NodeFolder:
    """The files below a node's folder. Nothing here connects to a running node."""

    def __init__(self, path: Path, *, tls: bool) -> None:
        self.path = path
        self.tls = tls
        self.config = path / "config"
        self.storage = path / "data"
        self.logs = path / "logs"
        self.temporary = path / "tmp"
        self.pid_file = path / "pid"
        self.owner_lock = path / "owner.lock"
        self.guardian_lock = path / "guardian.lock"
        self.console = self.logs / "console.log"
        self.certificate = self.config / "http.pem"
        self._key_store = self.config / "http.p12"
        self._state_file = path / "embedded-node.json"
        self.log = self.logs / f"{_CLUSTER}.log"

    def create(self) -> None:
        """Create the folder with mode 0700. Raises EmbeddedNodeError when it holds other files."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.owner_lock.exists():
            if any(self.path.iterdir()):
                raise EmbeddedNodeError(f"{self.path} is not empty and not the folder of an embedded node")
            self.path.chmod(0o700)

    def claim(self, version: str, password: str) -> None:
        """Record version and password hash. Raises EmbeddedNodeError for newer data or another password."""
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            state = {"salt": secrets.token_hex(16)}
            state["password"] = _password_hash(password, state["salt"])
        else:
            if parse_version(state["version"]) > parse_version(version):
                raise EmbeddedNodeError(
                    f"the data in {self.path} were last used by Elasticsearch {state['version']}, which "
                    f"{version} cannot read; use that version or another folder"
                )
            if state["password"] != _password_hash(password, state["salt"]):
                raise EmbeddedNodeError(
                    f"the data in {self.path} were created with another password for the user elastic"
                )
        state["version"] = version
        self._write_state(state)

    def max_disk(self) -> int:
        """Return the default of --max-disk in bytes: determined at the first call, then stored."""
        state = json.loads(self._state_file.read_text(encoding="utf-8"))
        if "max_disk" not in state:
            state["max_disk"] = default_max_disk(self.storage)
            self._write_state(state)
        return int(state["max_disk"])

    def _write_state(self, state: dict[str, Any]) -> None:
        draft = self._state_file.with_suffix(".new")
        draft.write_text(json.dumps(state), encoding="utf-8")
        draft.replace(self._state_file)

    def write_config(
        self,
        installation: Installation,
        listener: Listener,
        heap: str,
        settings: Mapping[str, str | None],
    ) -> None:
        """Write the configuration; users, roles and the keystore of an earlier start are kept."""
        if not re.fullmatch(r"\d+[kmgKMG]?", heap):
            raise EmbeddedNodeError(f"invalid heap size {heap!r} (use a size such as 512m or 2g)")
        distribution = installation.distribution
        shutil.rmtree(self.temporary, ignore_errors=True)
        for folder in (self.config / "jvm.options.d", self.storage, self.logs, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("users", "users_roles", "roles.yml", "role_mapping.yml"):
            if not (self.config / name).exists():
                shutil.copyfile(distribution / "config" / name, self.config / name)
        (self.config / "log4j2.properties").write_text(_LOG4J2, encoding="utf-8")
        defaults = (distribution / "config" / "jvm.options").read_text(encoding="utf-8").splitlines()
        (self.config / "jvm.options").write_text(
            "\n".join(_jvm_options(defaults, installation.runtime)) + "\n", encoding="utf-8"
        )
        own_options = [
            f"-Xms{heap}",
            f"-Xmx{heap}",
            "-XX:-AlwaysPreTouch",  # allocate memory when it is used
            f"-XX:ErrorFile={self.logs}/hs_err_pid%p.log",
            f"-XX:ReplayDataFile={self.logs}/replay_pid%p.log",
        ]
        (self.config / "jvm.options.d" / "own.options").write_text(
            "\n".join(own_options) + "\n", encoding="utf-8"
        )
        merged = {**self._default_settings(listener), **settings}
        # JSON strings are YAML strings.
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in merged.items() if value is not None]
        (self.config / "elasticsearch.yml").write_text("".join(lines), encoding="utf-8")
        own_files(self.path, installation.prefix)

    def store_secrets(self, installation: Installation, password: str) -> None:
        """Add the password, and that of the TLS key, to the node's keystore if they are missing."""
        missing = {}
        if not (self.config / "elasticsearch.keystore").exists():
            missing["bootstrap.password"] = password
        if self.tls and not self.certificate.exists():
            key_password = secrets.token_urlsafe(24)
            self._make_certificate(installation.runtime, key_password)
            missing[_TLS_SETTING] = key_password
        if missing:
            tool = installation.distribution / "bin" / "elasticsearch-keystore"
            self._run(
                [*installation.prefix, str(tool), "add", "-x", "-f", *missing],
                installation.runtime,
                "".join(f"{value}\n" for value in missing.values()),
            )

    def environment(self, runtime: Runtime) -> dict[str, str]:
        """Return the complete environment of the node: no other variable, and so no secret, is passed on."""
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ") if name in os.environ
        }
        return {
            **kept,
            "ES_JAVA_HOME": str(runtime.home),
            "ES_PATH_CONF": str(self.config),
            "ES_TMPDIR": str(self.temporary),
        }

    def is_unlocked(self) -> bool:
        """Return whether no server process holds the lock of the data."""
        try:
            with (self.storage / "node.lock").open("r+b") as lock:
                # Java's file locks are POSIX record locks. Closing the file releases the lock.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except (BlockingIOError, PermissionError):
            return False
        return True

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the node's console output and log, without stack traces."""
        tail = []
        for log in (self.console, self.log):
            if log.exists():
                text = log.read_text(encoding="utf-8", errors="replace").splitlines()
                shown = [line for line in text if not line.startswith("\tat ")][-lines:]
                tail += [f"--- {log}", *shown] if shown else []
        return "\n".join(tail)

    def _default_settings(self, listener: Listener) -> dict[str, str]:
        tls = {
            "xpack.security.http.ssl.enabled": "true",
            "xpack.security.http.ssl.keystore.path": self._key_store.name,
        }
        return {
            "cluster.name": _CLUSTER,
            "node.name": f"embedded-{listener.port}",
            "path.data": str(self.storage),
            "path.logs": str(self.logs),
            "network.host": listener.host,
            "http.port": str(listener.port),
            "transport.port": str(listener.transport_port),
            "discovery.type": "single-node",
            # Absolute sizes: the default, 15% of a large disk, is more than ever needed.
            "cluster.routing.allocation.disk.watermark.low": f"{LOW}b",
            "cluster.routing.allocation.disk.watermark.high": f"{HIGH}b",
            "cluster.routing.allocation.disk.watermark.flood_stage": f"{FLOOD_STAGE}b",
            "xpack.security.enabled": "true",
            "xpack.security.enrollment.enabled": "false",
            "xpack.security.autoconfiguration.enabled": "false",
            "xpack.security.transport.ssl.enabled": "false",
            **(tls if self.tls else {"xpack.security.http.ssl.enabled": "false"}),
        }

    def _make_certificate(self, runtime: Runtime, key_password: str) -> None:
        """Create a self-signed certificate for loopback, which clients use as the CA."""
        keytool = str(runtime.home / "bin" / "keytool")
        self._key_store.unlink(missing_ok=True)
        store = ["-alias", "http", "-keystore", str(self._key_store), "-storetype", "PKCS12"]
        create = [
            keytool,
            "-genkeypair",
            *store,
            "-keyalg",
            "EC",
            "-groupname",
            "secp256r1",
            "-validity",
            "3650",
        ]
        named = ["-dname", "CN=localhost", "-ext", "san=dns:localhost,ip:127.0.0.1", "-ext", "bc=ca:true"]
        self._run([*create, *named], runtime, f"{key_password}\n{key_password}\n")
        draft = self.certificate.with_suffix(".new")
        self._run([keytool, "-exportcert", "-rfc", *store, "-file", str(draft)], runtime, f"{key_password}\n")
        draft.replace(self.certificate)

    def _run(self, command: list[str], runtime: Runtime, secrets_input: str) -> None:
        """Run a tool that reads secrets from standard input, which no process list shows."""
        environment = self.environment(runtime)
        done = subprocess.run(
            command,
            check=False,
            input=secrets_input,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            cwd=self.path,
            start_new_session=True,  # keep Ctrl+C from failing the tool
        )
        if done.returncode != 0:
            tool = next(part for part in command if "/" in part)
            output = (done.stderr.strip() or done.stdout.strip())[-500:]
            raise EmbeddedNodeError(f"{Path(tool).name} failed with exit code {done.returncode}: {output}")


def _jvm_options(defaults: list[str], runtime: Runtime) -> list[str]:
    """Return the options of the distribution that this runtime supports and the node needs."""
    kept = [line for line in defaults if not line.startswith("#") and not _UNWANTED_JVM_OPTIONS.search(line)]
    if _VECTOR_MODULE not in runtime.modules:
        kept = [line for line in kept if _VECTOR_MODULE not in line]
    return [line for line in kept if line.strip()]


def _password_hash(password: str, salt: str) -> str:
    return hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1).hex()
