"""The real program at --log-level debug, in all the ways that fail: no secret is in anything it says."""

from __future__ import annotations

import html
import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from slurp.config import parse
from slurp.embedded.node import EmbeddedNode
from slurp.kibana.client import Kibana, Refused
from slurp.logs import Secrets
from slurp.simulator.jetstream import Simulator
from tests.test_http_worker import Asked
from tests.tiers import slow_except
from tests.worker import Worker

# Each with something that JSON, the repr of an error or a URL writes in another way.
ES_PASS = 'geheim "Es"\\ä'
KIBANA_PASS = 'leise/"Kib"\\+ana\'1'
API_KEY = "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6c2VjcmV0=="
USER = "worker"


def spellings(secret: str) -> set[str]:
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


def ask_for_credentials(request: BaseHTTPRequestHandler) -> None:
    """Answer as Kibana does where `status.allowAnonymous` is false."""
    request.send_response(401)
    request.send_header("kbn-name", "kibana")
    request.send_header("Content-Length", "0")
    request.end_headers()


@contextmanager
def echo() -> Iterator[str]:
    """A proxy that is broken and shows the request in its error page, as some do. Without credentials it is
    Kibana that asks for some."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "Authorization" not in self.headers:
                ask_for_credentials(self)
                return
            shown = f"bad gateway: {dict(self.headers)}"
            body = json.dumps(
                {"error": {"type": "proxy_exception", "reason": shown}, "message": shown}, ensure_ascii=False
            ).encode()
            self.send_response(502)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


BROKEN = """
import os
from slurp.jetstream import servers
from slurp.pipeline.reader import Reader
from slurp.kibana.install import Installer

def fail(*args, **options):
    raise ValueError("with " + os.environ["SKEETSLURPER_ES_PASS"], os.environ["SKEETSLURPER_KIBANA_PASS"])

hosts.connect = Reader.step = Installer.run = fail
from slurp.cli import main
raise SystemExit(main())
"""

Run = Callable[..., Worker]


@pytest.fixture(params=slow_except(["text", "json"], "text"))
def run(request: pytest.FixtureRequest, jetstream: Simulator, tmp_path: Path) -> Run:
    """Start a worker that has all secrets from its environment."""
    jetstream.generate(20)

    def begin(*options: str, program: Path | None = None, **env: str) -> Worker:
        return Worker(
            *("--jetstream", jetstream.url, "--log-level", "debug", "--log-format", request.param),
            *("--es-user", USER, *options),
            home=tmp_path,
            env={"SKEETSLURPER_ES_PASS": ES_PASS, "SKEETSLURPER_KIBANA_PASS": KIBANA_PASS} | env,
            **({"program": program} if program else {}),
        )

    return begin


@pytest.mark.parametrize(
    "options",
    [
        ("--kibana-user", USER, "--kibana-pass", "leise  Kib\tana"),
        ("--es-api-key", API_KEY),
    ],
)
def test_a_kibana_that_shows_what_it_was_asked(options: tuple[str, ...]) -> None:
    """Wherever its words are cut, and with the blanks of the password."""
    padding = count(200)

    class Shows(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "Authorization" not in self.headers:
                ask_for_credentials(self)
                return
            asked = self.headers["Authorization"].split()[1]
            shown = asked if "ApiKey" in self.headers["Authorization"] else b64decode(asked).decode()
            body = json.dumps({"message": f"{'x' * next(padding)} {shown} {asked}"}).encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Shows) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = parse(["--kibana", f"http://127.0.0.1:{server.server_port}", *options], {})
        secrets = Secrets(config.secrets)
        kibana = Kibana(config, secrets)
        for _ in range(110):
            with pytest.raises(Refused) as refused:
                kibana.status()
            told = secrets.scrub(str(refused.value))
            for secret in config.secrets:
                assert secret[:4] not in told
        kibana.close()
        server.shutdown()


def test_a_password_that_is_refused(run: Run, es_node: EmbeddedNode) -> None:
    with run("--es", es_node.url, "--wait", "500ms", "--no-kibana") as worker:
        assert worker.exit_code() == 2
    assert "refuses the password" in worker.log
    assert_hidden(worker.log)


def test_a_proxy_that_shows_what_it_was_asked(run: Run) -> None:
    with echo() as url:
        with run("--es", url, "--wait", "500ms", "--no-kibana") as worker:
            assert worker.exit_code() == 1
        with run(
            *("--es", url, "--wait", "500ms", "--kibana-user", USER), SKEETSLURPER_ES_API_KEY=API_KEY
        ) as keyed:
            assert keyed.exit_code() == 1
    for log in (worker.log, keyed.log):
        assert "authorization" in log.lower(), "it did show it"
        assert "***" in log
        assert_hidden(log)


def test_what_is_shown_of_a_proxy_that_shows_what_it_was_asked(run: Run) -> None:
    with echo() as url, run("--es", url, "--no-kibana", "--http", "127.0.0.1:0") as worker:
        asked = Asked(worker)
        ready = asked.wait("/readyz", 503, "bad gateway")
        shown = html.unescape(asked.get("/")[1])
        metrics = asked.get("/metrics")[1]
        assert worker.stop() == 0
    for text in (ready, shown):
        assert "authorization" in text.lower(), "it did show it"
        assert "***" in text
    for text in (ready, shown, metrics, worker.log):
        assert_hidden(text)


def test_nobody_there(run: Run) -> None:
    with run("--es", "http://127.0.0.1:1", "--wait", "100ms") as worker:
        assert worker.exit_code() == 1
    assert_hidden(worker.log)


def test_bugs_with_a_secret_in_their_tracebacks(
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
    assert worker.log.count("Traceback") >= 3, "of a probe, the reader and Kibana"
    assert worker.log.count("***") >= 6
    assert "changeme" not in worker.log
    assert_hidden(worker.log)


def test_kibana_behind_a_proxy_that_shows_what_it_was_asked(
    run: Run, es_node: EmbeddedNode, fresh_index_prefix: str
) -> None:
    with (
        echo() as url,
        run(
            *("--es", es_node.url, "--index", fresh_index_prefix, "--es-user", "elastic"),
            *("--kibana", url, "--kibana-user", USER),
            SKEETSLURPER_ES_PASS="changeme",
        ) as worker,
    ):
        worker.wait_for("Kibana at .* is not ready: .*bad gateway")
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
def test_userinfo_in_a_url(
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
        told = capsys.readouterr().err
        assert option in told
        for part in ("geheim", "heim", "worker:", "ge/"):
            assert part not in told
