"""The compose stack as far as it can be checked without Docker, and its setup.sh."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from slurp.addresses import Address
from slurp.config import parse
from slurp.elastic.privileges import main as show_role
from slurp.elastic.privileges import worker_with_setup
from slurp.embedded.node import EmbeddedNode
from slurp.options.definitions import build_parser
from slurp.options.parser import env_variable
from slurp.simulator.jetstream import Simulator
from slurp.units import parse_duration
from slurp.web.http_server import HttpServer, Request, Response, text_response
from tests.file_realm import FileRealm
from tests.fixtures_es import PASSWORD
from tests.security_api import SecurityApi
from tests.worker import Worker

ROOT = Path(__file__).parents[1]
ELK = ROOT / "elk"
COMPOSE = ELK / "docker-compose.yml"
SETUP = ELK / "setup.sh"
SCRIPTS = (*sorted(ELK.glob("*.sh")), ROOT / ".ci" / "run")
ROLE = ELK / "skeetslurper_writer.json"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
BIN = Path(sys.executable).parent

# Quotes, a backslash and a blank, which shells, JSON and curl treat differently, and $ and ü.
ODD_PASSWORD = "k\"i'b\\a na$HOME ü"

VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
LONG_RUNNING = {name: service for name, service in SERVICES.items() if name != "setup"}


def dotenv() -> dict[str, str]:
    lines = (ELK / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def substitute(text: str, values: dict[str, str]) -> str:
    """Substitute variables as compose does: `:-` is the default for an empty or missing one."""

    def value(match: re.Match[str]) -> str:
        return values.get(match[1], "") or (match[3] if match[2] == "-" else "")

    return VARIABLE.sub(value, text)


# The files


@pytest.mark.parametrize(
    "command",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        ["yamllint", "--strict", "-c", str(ROOT / ".yamllint"), str(COMPOSE)],
        ["shellcheck", "--enable", "quote-safe-variables", *map(str, SCRIPTS)],
        ["hadolint", str(DOCKERFILE)],
    ],
    ids=lambda command: command[0],
)
def test_linters_report_no_errors(command: list[str]) -> None:
    program, *arguments = command
    done = subprocess.run([str(BIN / program), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_is_set_in_dotenv() -> None:
    used = {match[1] for match in VARIABLE.finditer(COMPOSE.read_text(encoding="utf-8"))}
    assert used == dotenv().keys()


def test_dotenv_meets_the_requirements_of_elasticsearch_and_kibana() -> None:
    values = dotenv()
    assert values["ELASTIC_PASSWORD"] == PASSWORD, "must equal the default of the worker"
    assert all(len(values[name]) >= 6 for name in values if name.endswith("_PASSWORD"))
    assert len(values["KIBANA_ENCRYPTION_KEY"]) >= 32


@pytest.mark.parametrize("values", [dotenv(), dotenv() | {"BIND_ADDRESS": ""}], ids=["default", "empty"])
def test_every_published_port_is_on_loopback(values: dict[str, str]) -> None:
    ports = {substitute(port, values) for service in SERVICES.values() for port in service.get("ports", [])}
    assert ports == {"127.0.0.1:9200:9200", "127.0.0.1:5601:5601", "127.0.0.1:9600:9600"}


def test_services_belong_to_their_profiles() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "setup": [],
        "elasticsearch": [],
        "kibana": [],
        "logstash": ["logstash"],
        "skeetslurper": ["app"],
    }


def test_every_service_has_memory_and_log_limits() -> None:
    for name, service in SERVICES.items():
        assert service["mem_limit"], name
        assert service["logging"]["options"]["max-size"], name
    heap = {"elasticsearch": ("ES_HEAP", "ES_MEM_LIMIT"), "logstash": ("LOGSTASH_HEAP", "LOGSTASH_MEM_LIMIT")}
    for small, large in heap.values():
        assert 2 * _mebibytes(dotenv()[small]) <= _mebibytes(dotenv()[large])


def _mebibytes(text: str) -> int:
    return int(text[:-1]) * {"m": 1, "g": 1024}[text[-1]]


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_services_restart_and_have_a_health_check(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    if "build" in service:
        assert "HEALTHCHECK" in DOCKERFILE.read_text(encoding="utf-8")
    else:
        assert "PASS" not in service["healthcheck"]["test"], "docker ps and inspect show the command"


@pytest.mark.parametrize(("status", "code"), [(HTTPStatus.OK, 0), (HTTPStatus.SERVICE_UNAVAILABLE, 1)])
def test_the_image_health_check_requests_healthz(status: HTTPStatus, code: int) -> None:
    (command,) = re.findall(
        r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE.read_text("utf-8"), re.MULTILINE
    )
    requested: list[str] = []

    def answer(request: Request) -> Response:
        requested.append(request.path)
        return text_response("", status)

    server, finished = HttpServer(Address("127.0.0.1", 0), answer), threading.Event()
    thread = threading.Thread(target=server.run, args=(finished,))
    thread.start()
    try:
        program, *arguments = orjson.loads(command.replace("8642", str(server.address.port)))
        assert program == "python"
        assert subprocess.run([sys.executable, *arguments], check=False, timeout=20).returncode == code
        assert requested == ["/healthz"]
    finally:
        finished.set()
        thread.join()


def test_services_start_in_order() -> None:
    healthy = {"elasticsearch": {"condition": "service_healthy"}}
    assert SERVICES["setup"]["depends_on"] == healthy
    assert SERVICES["setup"]["restart"] == "no"
    for name in ("kibana", "skeetslurper"):
        done = {"setup": {"condition": "service_completed_successfully"}}
        assert SERVICES[name]["depends_on"] == healthy | done, name


def test_the_environment_of_the_worker_is_valid() -> None:
    environment = {
        name: substitute(v, dotenv()) for name, v in SERVICES["skeetslurper"]["environment"].items()
    }
    options = {o for action in build_parser()._actions for o in action.option_strings if o.startswith("--")}
    assert environment.keys() <= {env_variable(option) for option in options}
    config = parse([], environment)
    assert config.es == ("http://elasticsearch:9200",)
    assert config.kibana == "http://kibana:5601"
    assert config.es_user == ROLE.stem
    assert parse_duration(SERVICES["skeetslurper"]["stop_grace_period"]) > config.grace


def test_mounted_files_exist() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"] if mount.startswith(".")]
    assert len(mounts) == 3
    for mount in mounts:
        assert (ELK / mount.split(":")[0]).exists(), mount


def test_the_readme_mentions_only_existing_settings() -> None:
    existing = COMPOSE.read_text(encoding="utf-8") + (ELK / ".env").read_text(encoding="utf-8")
    mentioned = set(re.findall(r"`([A-Z]+_?[A-Z_]+)\b", (ELK / "README.md").read_text(encoding="utf-8")))
    variables = {name for name in mentioned if not name.startswith("SKEETSLURPER_")}
    assert {name for name in variables if name not in existing} == set()
    assert "BIND_ADDRESS" in variables


# The role


def test_the_role_is_the_documented_one(capsys: pytest.CaptureFixture[str]) -> None:
    show_role(["skeetslurper_worker_with_setup"])
    expected = capsys.readouterr().out
    assert ROLE.read_text(encoding="utf-8") == expected, (
        f"generate it: python -m slurp.elastic.privileges skeetslurper_worker_with_setup > elk/{ROLE.name}"
    )
    assert yaml.safe_load(expected) == worker_with_setup("bluesky-events")


@pytest.mark.slow
@pytest.mark.cluster_wide
def test_with_this_role_the_worker_sets_up_and_indexes(
    es_node: EmbeddedNode, fresh_index_prefix: str, jetstream: Simulator, tmp_path: Path
) -> None:
    realm = FileRealm(es_node)
    user = fresh_index_prefix
    body = yaml.safe_load(ROLE.read_text(encoding="utf-8").replace("bluesky-events", fresh_index_prefix))
    realm.roles({user: body})
    try:
        realm.add(user, "writer-writer", user)
        _wait_for_role(realm, user)
        jetstream.run_at(200)
        environment = {"SKEETSLURPER_ES_USER": user, "SKEETSLURPER_ES_PASS": "writer-writer"}
        with Worker(
            *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix),
            *("--no-kibana", "--stats-interval", "1s"),
            home=tmp_path,
            env=environment,
        ) as process:
            process.wait_for(r"indexed [1-9]")
            jetstream.pause()
            assert process.stop() == 0
            assert process.counted()["quarantined"] == 0
            assert "denies" not in process.log
            assert "cannot" not in process.log
    finally:
        realm.roles({})
        realm._tool("userdel", user)


def _wait_for_role(realm: FileRealm, user: str) -> None:
    deadline = time.monotonic() + 20
    with realm.client(user, "writer-writer") as client:
        while not client.security.has_privileges(cluster=["monitor"])["has_all_requested"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)


# setup.sh


@pytest.fixture
def api() -> Iterator[SecurityApi]:
    with SecurityApi() as server:
        yield server


def run_setup(url: str, path: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    defaults = {
        "PATH": path or os.environ["PATH"],
        "ES_URL": url,
        "ELASTIC_PASSWORD": PASSWORD,
        "KIBANA_SYSTEM_PASSWORD": "kibana-kibana",
        "WRITER_PASSWORD": ODD_PASSWORD,
        "WRITER_KIBANA_ROLE": "kibana_admin",
        "SETUP_WAIT": "3",
        "SETUP_BELIEVE_DENIED": "1",
        # Docker sets the proxy of its own configuration in every container.
        "http_proxy": "http://127.0.0.1:9",
    }
    return subprocess.run(
        ["/bin/sh", str(SETUP)],
        check=False,
        env=defaults | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_second_setup_changes_nothing(api: SecurityApi) -> None:
    first = run_setup(api.url)
    assert (first.returncode, first.stderr) == (0, "")
    assert "user skeetslurper_writer created" in first.stdout
    after = (dict(api.passwords), dict(api.roles), dict(api.users))

    second = run_setup(api.url)
    assert (second.returncode, second.stderr) == (0, "")
    assert "role skeetslurper_writer is up to date" in second.stdout
    assert "created" not in second.stdout
    assert (api.passwords, api.roles, api.users) == after

    assert api.passwords == {
        "elastic": PASSWORD,
        "kibana_system": "kibana-kibana",
        "skeetslurper_writer": ODD_PASSWORD,
    }
    assert api.roles == {"skeetslurper_writer": worker_with_setup("bluesky-events")}
    assert api.users == {"skeetslurper_writer": {"roles": ["skeetslurper_writer", "kibana_admin"]}}


def test_without_a_password_no_writer_is_created(api: SecurityApi) -> None:
    done = run_setup(api.url, WRITER_PASSWORD="", KIBANA_SYSTEM_PASSWORD=ODD_PASSWORD)
    assert done.returncode == 0
    assert api.users == {}
    assert api.passwords["kibana_system"] == ODD_PASSWORD


def test_the_kibana_role_of_the_writer_is_optional(api: SecurityApi) -> None:
    assert run_setup(api.url, WRITER_KIBANA_ROLE="").returncode == 0
    assert api.users == {"skeetslurper_writer": {"roles": ["skeetslurper_writer"]}}


def test_setup_waits_for_a_starting_cluster(api: SecurityApi) -> None:
    api.starting = [
        (401, {"error": {"reason": "unable to authenticate"}}),
        (503, {"error": {"reason": "no master"}}),
        (408, {"status": "red", "timed_out": True}),
    ]
    done = run_setup(api.url, SETUP_WAIT="30", SETUP_BELIEVE_DENIED="20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("waiting for Elasticsearch") == 1


def test_without_a_cluster_setup_fails_after_its_timeout(api: SecurityApi) -> None:
    done = run_setup("http://127.0.0.1:9")
    assert done.returncode == 1
    assert "is not ready after 3 s: no response (curl: (7)" in done.stderr


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        # A page of a proxy, with status 200.
        ("/_security/user/kibana_system/_password", {"hello": 1}, "the response is not from Elasticsearch"),
        ("/_security/role/skeetslurper_writer", {}, "the response is not from Elasticsearch"),
        ("/_security/_authenticate", {"username": "anonymous"}, "the response is not from Elasticsearch"),
    ],
)
def test_the_response_body_is_checked(
    api: SecurityApi, path: str, answer: dict[str, Any], message: str
) -> None:
    api.odd[path] = (200, answer)
    done = run_setup(api.url)
    assert done.returncode == 1
    assert message in done.stderr


def test_an_error_is_reported_with_its_reason(api: SecurityApi) -> None:
    api.odd["/_security/role/skeetslurper_writer"] = (400, {"error": {"reason": "unknown cluster privilege"}})
    done = run_setup(api.url)
    assert done.returncode == 1
    assert "the role skeetslurper_writer: HTTP 400, unknown cluster privilege" in done.stderr


@pytest.mark.parametrize("password", ["short", "", "two\nlines", "a\tblank"])
def test_invalid_passwords_are_rejected_by_name(api: SecurityApi, password: str) -> None:
    done = run_setup(api.url, KIBANA_SYSTEM_PASSWORD=password)
    assert done.returncode == 1
    assert "KIBANA_SYSTEM_PASSWORD in .env has " in done.stderr
    assert api.changes == []


def test_no_secret_on_a_command_line_or_in_the_log(api: SecurityApi, tmp_path: Path) -> None:
    """Programs earlier in the path record the arguments of the real ones."""
    seen = tmp_path / "seen"
    for name in ("curl", "sed", "cat", "rm", "date", "head"):
        real = shutil.which(name)
        spy = tmp_path / name
        spy.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >>{shlex.quote(str(seen))}\nexec {real} "$@"\n'
        )
        spy.chmod(0o755)
    done = run_setup(
        api.url, path=f"{tmp_path}:{os.environ['PATH']}", WRITER_PASSWORD="top-secret-1", TMPDIR=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    output = seen.read_text(encoding="utf-8") + done.stdout + done.stderr
    assert "curl -q --config" in output
    for secret in (PASSWORD, "kibana-kibana", "top-secret-1"):
        assert secret not in output
    assert not list(tmp_path.glob("tmp.*")), "its temporary files must be deleted"


def test_on_a_real_node_a_wrong_password_is_reported_with_the_remedy(es_node: EmbeddedNode) -> None:
    for _ in range(2):
        done = run_setup(es_node.url, ELASTIC_PASSWORD="not-the-password")
        assert done.returncode == 1
        assert "rejects the password of elastic in .env" in done.stderr
        assert "older than this .env" in done.stderr
        assert "elasticsearch-reset-password" in done.stderr
        assert "not-the-password" not in done.stdout + done.stderr


def test_on_a_real_node_the_reason_of_elasticsearch_is_reported(es_node: EmbeddedNode) -> None:
    """The password is right, but the embedded node cannot store users."""
    done = run_setup(es_node.url)
    assert done.returncode == 1
    assert "the password of kibana_system: HTTP 400, Unknown filter type" in done.stderr


# The image; tests/test_packaging.py runs its first stage


def test_the_build_context_is_what_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(" ".join(copies).split()) == sorted(line[1:] for line in lines if line.startswith("!"))
