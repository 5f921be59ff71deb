"""Secrets appear in no log, page or metric of the real program at --log-level debug, whatever fails."""

from __future__ import annotations

import html
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from slurp.config import parse
from slurp.embedded.node import EmbeddedNode
from slurp.kibana.client import KibanaClient, Rejected
from slurp.logs import Secrets
from slurp.simulator.jetstream import Simulator
from tests.stub_server import JSON, Request, Response, StubServer
from tests.test_http_worker import HttpClient
from tests.tiers import slow_except
from tests.worker import Worker

# Each contains characters that JSON, the repr of an error or a URL escapes.
ES_PASS = 'geheim "Es"\\ä'
KIBANA_PASS = 'leise/"Kib"\\+ana\'1'
API_KEY = "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6c2VjcmV0=="
USER = "worker"


def spellings(secret: str) -> set[str]:
    """Return a secret as it may appear in a text: unchanged, escaped and encoded."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        b64encode(f"{USER}:{secret}".encode()).decode(),
    }


HIDDEN = spellings(ES_PASS) | spellings(KIBANA_PASS) | spellings(API_KEY)


def assert_hidden(log: str) -> None:
    for spelling in HIDDEN:
        assert spelling not in log
    for word in ("geheim", "leise", API_KEY[:20]):
        assert word not in log


# As Kibana responds to a request without credentials if `status.allowAnonymous` is false.
CREDENTIALS_REQUIRED = Response(401, headers={"kbn-name": "kibana"})


def echo(request: Request) -> Response:
    """Respond like a broken proxy whose error page contains the request, or like Kibana if it has no
    credentials."""
    if "Authorization" not in request.headers:
        return CREDENTIALS_REQUIRED
    text = f"bad gateway: {dict(request.headers)}"
    return Response(502, {"error": {"type": "proxy_exception", "reason": text}, "message": text}, JSON)


BROKEN = """
import os
from slurp.jetstream import servers
from slurp.pipeline.reader import Reader
from slurp.kibana.install import Installer

def fail(*args, **options):
    raise ValueError("with " + os.environ["SKEETSLURPER_ES_PASS"], os.environ["SKEETSLURPER_KIBANA_PASS"])

servers.connect = Reader.step = Installer.run = fail
from slurp.cli import main
raise SystemExit(main())
"""

Run = Callable[..., Worker]


@pytest.fixture(params=slow_except(["text", "json"], "text"))
def run(request: pytest.FixtureRequest, jetstream: Simulator, tmp_path: Path) -> Run:
    """Return a function that starts a worker with all secrets in its environment."""
    jetstream.generate(20)

    def start(*options: str, program: Path | None = None, **env: str) -> Worker:
        return Worker(
            *("--jetstream", jetstream.url, "--log-level", "debug", "--log-format", request.param),
            *("--es-user", USER, *options),
            home=tmp_path,
            env={"SKEETSLURPER_ES_PASS": ES_PASS, "SKEETSLURPER_KIBANA_PASS": KIBANA_PASS} | env,
            **({"program": program} if program else {}),
        )

    return start


@pytest.mark.parametrize(
    "options",
    [
        ("--kibana-user", USER, "--kibana-pass", "leise  Kib\tana"),
        ("--es-api-key", API_KEY),
    ],
)
def test_an_error_message_of_kibana_with_the_credentials_is_scrubbed(options: tuple[str, ...]) -> None:
    """Also if the message is cut within the credentials, and with the spaces in the password."""
    padding = count(200)

    def respond(request: Request) -> Response:
        if "Authorization" not in request.headers:
            return CREDENTIALS_REQUIRED
        scheme, encoded = request.headers["Authorization"].split()
        decoded = encoded if scheme == "ApiKey" else b64decode(encoded).decode()
        return Response(403, {"message": f"{'x' * next(padding)} {decoded} {encoded}"})

    with StubServer(respond) as server:
        config = parse(["--kibana", server.url, *options], {})
        secrets = Secrets(config.secrets)
        kibana = KibanaClient(config, secrets)
        for _ in range(110):
            with pytest.raises(Rejected) as refused:
                kibana.status()
            message = secrets.scrub(str(refused.value))
            for secret in config.secrets:
                assert secret[:4] not in message
        kibana.close()


def test_a_rejected_password_is_hidden(run: Run, es_node: EmbeddedNode) -> None:
    with run("--es", es_node.url, "--wait", "500ms", "--no-kibana") as worker:
        assert worker.exit_code() == 2
    assert "rejects the password" in worker.log
    assert_hidden(worker.log)


def test_credentials_in_the_error_page_of_a_proxy_are_hidden_in_the_log(run: Run) -> None:
    with StubServer(echo) as proxy:
        with run("--es", proxy.url, "--wait", "500ms", "--no-kibana") as with_password:
            assert with_password.exit_code() == 1
        with run(
            *("--es", proxy.url, "--wait", "500ms", "--kibana-user", USER), SKEETSLURPER_ES_API_KEY=API_KEY
        ) as with_key:
            assert with_key.exit_code() == 1
    for log in (with_password.log, with_key.log):
        assert "authorization" in log.lower(), "the error page contains the credentials"
        assert "***" in log
        assert_hidden(log)


def test_credentials_in_the_error_page_of_a_proxy_are_hidden_over_http(run: Run) -> None:
    with StubServer(echo) as proxy, run("--es", proxy.url, "--no-kibana", "--http", "127.0.0.1:0") as worker:
        http = HttpClient(worker)
        readiness = http.wait("/readyz", 503, "bad gateway")
        page = html.unescape(http.get("/")[1])
        metrics = http.get("/metrics")[1]
        assert worker.stop() == 0
    for text in (readiness, page):
        assert "authorization" in text.lower(), "the error page contains the credentials"
        assert "***" in text
    for text in (readiness, page, metrics, worker.log):
        assert_hidden(text)


def test_secrets_are_hidden_if_no_server_listens(run: Run) -> None:
    with run("--es", "http://127.0.0.1:1", "--wait", "100ms") as worker:
        assert worker.exit_code() == 1
    assert_hidden(worker.log)


def test_secrets_in_tracebacks_are_hidden(
    run: Run, es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path
) -> None:
    program = tmp_path / "broken.py"
    program.write_text(BROKEN)
    root = str(Path(__file__).parents[1])
    with run(
        *("--es", es_node.url, "--index", fresh_index_prefix, "--es-user", "elastic", "--kibana-user", USER),
        program=program,
        PYTHONPATH=root,
        SKEETSLURPER_ES_PASS="changeme",
    ) as worker:
        assert worker.exit_code() == 1
    assert worker.log.count("Traceback") >= 3, "one of a probe, of the reader and of the Kibana thread"
    assert worker.log.count("***") >= 6
    assert "changeme" not in worker.log
    assert_hidden(worker.log)


def test_credentials_in_the_error_page_of_a_proxy_of_kibana_are_hidden(
    run: Run, es_node: EmbeddedNode, fresh_index_prefix: str
) -> None:
    with (
        StubServer(echo) as proxy,
        run(
            *("--es", es_node.url, "--index", fresh_index_prefix, "--es-user", "elastic"),
            *("--kibana", proxy.url, "--kibana-user", USER),
            SKEETSLURPER_ES_PASS="changeme",
        ) as worker,
    ):
        worker.wait_for("Kibana at .* not ready: .*bad gateway")
        assert worker.stop() == 0
    assert "***" in worker.log
    assert_hidden(worker.log)


@pytest.mark.parametrize("option", ["--es", "--jetstream", "--kibana"])
@pytest.mark.parametrize(
    "userinfo",
    [
        "worker:geheim",
        "geheim",
        "worker:ge/heim",
        "worker:12/geheim",
        "a:b@geheim",
        ":geheim\u2100",
        "w:geheim//",
    ],
)
@pytest.mark.parametrize("scheme", ["", "http://", "https://", "wss://", "ftp://"])
def test_an_error_about_credentials_in_a_url_does_not_contain_them(
    option: str,
    userinfo: str,
    scheme: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"{scheme}{userinfo}@es.example:9200/path"
    for arguments, environ in (([option, url], {}), ([], {f"SKEETSLURPER_{option[2:].upper()}": url})):
        with pytest.raises(SystemExit) as stopped:
            parse(arguments, environ)
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert option in message
        for part in ("geheim", "heim", "worker:", "ge/"):
            assert part not in message
