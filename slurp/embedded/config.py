"""The folder of one node: what is in it, and the configuration that is written into it."""

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
from pathlib import Path
from typing import Any

from slurp.embedded.data_folder import FLOOD_STAGE, HIGH, LOW, default_budget
from slurp.embedded.errors import EmbeddedNodeError
from slurp.embedded.java import Runtime, parse_version
from slurp.embedded.privileges import own_files

_CLUSTER = "skeetslurper-embedded"
# Elasticsearch itself points to a log with the name of the cluster when it fails.
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
# Lines of the distribution's jvm.options that we do without: a log of every garbage collection, a dump
# of the whole heap when memory runs out, and files in the distribution's own folder.
_UNWANTED_JVM_OPTIONS = re.compile(r"gc\.log|HeapDump|ErrorFile")
_VECTOR_MODULE = "jdk.incubator.vector"
_TLS_SETTING = "xpack.security.http.ssl.keystore.secure_password"


class Home:
    """The paths below a node's folder, and their upkeep. Nothing here talks to a running node."""

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
        self._note = path / "embedded-node.json"
        self.log = self.logs / f"{_CLUSTER}.log"

    def make_folder(self) -> None:
        """Make the folder, for our eyes only; refuses one in use for something else."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.owner_lock.exists():
            if any(self.path.iterdir()):
                raise EmbeddedNodeError(f"{self.path} is not empty and holds no embedded node's data")
            self.path.chmod(0o700)

    def claim(self, version: str, password: str) -> None:
        """Note whose data this is; refuses newer data and another password."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            note = {"salt": secrets.token_hex(16)}
            note["password"] = _password_hash(password, note["salt"])
        else:
            if parse_version(note["version"]) > parse_version(version):
                raise EmbeddedNodeError(
                    f"the data in {self.path} were last used by Elasticsearch {note['version']}, which "
                    f"{version} cannot read; use that version or another folder"
                )
            if note["password"] != _password_hash(password, note["salt"]):
                raise EmbeddedNodeError(
                    f"the data in {self.path} were set up with another password for the user elastic"
                )
        note["version"] = version
        self._write_note(note)

    def disk_budget(self) -> int:
        """Return the default of --max-disk in bytes. It is fixed when it is first asked for."""
        note = json.loads(self._note.read_text(encoding="utf-8"))
        if "max_disk" not in note:
            note["max_disk"] = default_budget(self.storage)
            self._write_note(note)
        return int(note["max_disk"])

    def _write_note(self, note: dict[str, Any]) -> None:
        draft = self._note.with_suffix(".new")
        draft.write_text(json.dumps(note), encoding="utf-8")
        draft.replace(self._note)

    def write(
        self,
        distribution: Path,
        runtime: Runtime,
        settings: Mapping[str, str | None],
        *,
        host: str,
        port: int,
        transport_port: int,
        heap: str,
        prefix: list[str],
    ) -> None:
        """Write the configuration afresh; users, roles and the keystore of an earlier start stay."""
        if not re.fullmatch(r"\d+[kmgKMG]?", heap):
            raise EmbeddedNodeError(f"{heap!r} is no heap size; write one like 512m or 2g")
        shutil.rmtree(self.temporary, ignore_errors=True)
        for folder in (self.config / "jvm.options.d", self.storage, self.logs, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("users", "users_roles", "roles.yml", "role_mapping.yml"):
            if not (self.config / name).exists():
                shutil.copyfile(distribution / "config" / name, self.config / name)
        (self.config / "log4j2.properties").write_text(_LOG4J2, encoding="utf-8")
        given = (distribution / "config" / "jvm.options").read_text(encoding="utf-8").splitlines()
        (self.config / "jvm.options").write_text(
            "\n".join(_jvm_options(given, runtime)) + "\n", encoding="utf-8"
        )
        own_options = [
            f"-Xms{heap}",
            f"-Xmx{heap}",
            "-XX:-AlwaysPreTouch",  # a laptop gives the memory when it is used
            f"-XX:ErrorFile={self.logs}/hs_err_pid%p.log",
            f"-XX:ReplayDataFile={self.logs}/replay_pid%p.log",
        ]
        (self.config / "jvm.options.d" / "own.options").write_text(
            "\n".join(own_options) + "\n", encoding="utf-8"
        )
        merged = {**self._default_settings(host, port, transport_port), **settings}
        # JSON strings are YAML strings.
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in merged.items() if value is not None]
        (self.config / "elasticsearch.yml").write_text("".join(lines), encoding="utf-8")
        own_files(self.path, prefix)

    def store_secrets(self, distribution: Path, runtime: Runtime, password: str, prefix: list[str]) -> None:
        """Put the password, and that of the TLS key, into the node's keystore, if they are not there yet."""
        wanted = {}
        if not (self.config / "elasticsearch.keystore").exists():
            wanted["bootstrap.password"] = password
        if self.tls and not self.certificate.exists():
            key_password = secrets.token_urlsafe(24)
            self._make_certificate(runtime, key_password)
            wanted[_TLS_SETTING] = key_password
        if wanted:
            tool = distribution / "bin" / "elasticsearch-keystore"
            self._run(
                [*prefix, str(tool), "add", "-x", "-f", *wanted],
                runtime,
                "".join(f"{value}\n" for value in wanted.values()),
            )

    def environment(self, runtime: Runtime) -> dict[str, str]:
        """The whole environment of the node: nothing of ours, so no secret of ours, gets there."""
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ") if name in os.environ
        }
        return {
            **kept,
            "ES_JAVA_HOME": str(runtime.home),
            "ES_PATH_CONF": str(self.config),
            "ES_TMPDIR": str(self.temporary),
        }

    def jvm_is_gone(self) -> bool:
        """Whether no server has its lock on the data, ours or anybody's."""
        try:
            with (self.storage / "node.lock").open("r+b") as lock:
                # Java's file locks are POSIX record locks. Closing the file releases what we got.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except (BlockingIOError, PermissionError):
            return False
        return True

    def log_tail(self, lines: int = 15) -> str:
        """The end of what the node said, on its console and in its log."""
        said = []
        for log in (self.console, self.log):
            if log.exists():
                text = log.read_text(encoding="utf-8", errors="replace").splitlines()
                telling = [line for line in text if not line.startswith("\tat ")][-lines:]
                said += [f"--- {log}", *telling] if telling else []
        return "\n".join(said)

    def _default_settings(self, host: str, port: int, transport_port: int) -> dict[str, str]:
        tls = {
            "xpack.security.http.ssl.enabled": "true",
            "xpack.security.http.ssl.keystore.path": self._key_store.name,
        }
        return {
            "cluster.name": _CLUSTER,
            "node.name": f"embedded-{port}",
            "path.data": str(self.storage),
            "path.logs": str(self.logs),
            "network.host": host,
            "http.port": str(port),
            "transport.port": str(transport_port),
            "discovery.type": "single-node",
            # Free space and not parts of it: 15% of a large disk is more than we ever need.
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
        """A self-signed certificate for loopback, which clients take as its own CA."""
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

    def _run(self, command: list[str], runtime: Runtime, answers: str) -> None:
        """Run a tool that reads secrets from standard input, where no process list shows them."""
        environment = self.environment(runtime)
        done = subprocess.run(
            command,
            check=False,
            input=answers,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            cwd=self.path,
            start_new_session=True,  # Ctrl+C is for us, and must not look like a tool that failed
        )
        if done.returncode != 0:
            tool = next(part for part in command if "/" in part)
            said = (done.stderr.strip() or done.stdout.strip())[-500:]
            raise EmbeddedNodeError(f"{Path(tool).name} failed with exit code {done.returncode}: {said}")


def _jvm_options(given: list[str], runtime: Runtime) -> list[str]:
    kept = [line for line in given if not line.startswith("#") and not _UNWANTED_JVM_OPTIONS.search(line)]
    if _VECTOR_MODULE not in runtime.modules:
        kept = [line for line in kept if _VECTOR_MODULE not in line]
    return [line for line in kept if line.strip()]


def _password_hash(password: str, salt: str) -> str:
    return hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1).hex()
