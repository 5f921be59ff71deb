"""Proxies of the environment: loopback is reached directly, other hosts are not, no password is shown."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.embedded.node import EmbeddedNode
from slurp.jetstream.connection import connect
from slurp.jetstream.servers import probe_servers
from slurp.jetstream.zstd_dictionary import DictionaryUnavailable, fetch_dictionary
from slurp.kibana.client import KibanaClient
from slurp.logs import Secrets
from slurp.proxies import BadProxy, proxies_of, proxy_for
from slurp.simulator.jetstream import Simulator
from tests.http_proxy import HttpProxy
from tests.stub_kibana import StubKibana
from tests.worker import Worker, assert_each_once, wait_for_documents

VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
# Nothing listens on that port.
UNREACHABLE = dict.fromkeys(VARIABLES, "http://127.0.0.1:9")
LOOPBACK = ["localhost", "127.0.0.1", "127.8.9.10", "[::1]", "jetstream.localhost", "LOCALHOST."]

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Return a function that sets these variables and unsets all other proxy variables."""

    def work(**variables: str) -> None:
        for name in (*VARIABLES, "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return work


@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "https"])
@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_never_uses_a_proxy(environment: Environment, host: str, scheme: str) -> None:
    environment(**UNREACHABLE)
    assert proxy_for(f"{scheme}://{host}:6008/subscribe") is None
    assert proxies_of([f"{scheme}://{host}:6008"]) == []


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "wss://j.example", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "wss://j.example", "http://p:3128"),
        ({"https_proxy": "http://p:3128"}, "wss://j.example", "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, "wss://j.example", None),
        ({"HTTP_PROXY": "http://p:3128"}, "ws://j.example", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "ws://j.example", None),
        ({"ALL_PROXY": "http://p:3128"}, "ws://j.example", "http://p:3128"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://p:3128"}, "wss://j.example", "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, "wss://j.example", "http://p:3128"),
        ({"HTTPS_PROXY": "https://p"}, "wss://j.example", "http://p:80"),
        ({"HTTPS_PROXY": "http://ann:geheim@p:3128"}, "wss://j.example", "http://p:3128"),
        ({"HTTPS_PROXY": "http://[::2]:3128"}, "wss://j.example", "http://[::2]:3128"),
        ({"HTTPS_PROXY": ""}, "wss://j.example", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "example"}, "wss://j.example", None),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": ".example"}, "wss://j.example", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, "wss://j.example", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "10.0.0.0/8"}, "wss://10.1.2.3", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other.example"}, "wss://j.example", "http://p:3128"),
    ],
)
def test_the_proxy_is_selected_by_scheme_and_no_proxy(
    environment: Environment, variables: dict[str, str], url: str, expected: str | None
) -> None:
    environment(**variables)
    found = proxy_for(url)
    assert (None if found is None else str(found)) == expected
    assert proxies_of([url]) == ([] if expected is None else [expected])


@pytest.mark.parametrize("text", ["socks5://ann:geheim@p:1080", "socks5h://p", "http://p:geheim", "http://"])
def test_an_unusable_proxy_is_an_error_that_names_the_variable(environment: Environment, text: str) -> None:
    environment(ALL_PROXY=text)
    with pytest.raises(BadProxy) as error:
        proxy_for("wss://j.example")
    (found,) = probe_servers(["wss://j.example"])
    assert found.error == str(error.value)
    assert "PROXY" in found.error
    assert "geheim" not in found.error
    with pytest.raises(DictionaryUnavailable, match="PROXY"):
        fetch_dictionary("wss://j.example")


# Names that need no resolver; ::1 would need IPv6.
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_local_services_are_reached_directly_despite_proxies_in_the_environment(
    environment: Environment, jetstream: Simulator, es_node: EmbeddedNode, host: str
) -> None:
    environment(**UNREACHABLE)
    jetstream.generate(10)
    url = jetstream.url.replace("127.0.0.1", host)
    connect(f"{url}/subscribe", timeout=5).close()
    assert fetch_dictionary(url).id == jetstream.dictionary_id
    (found,) = probe_servers([url])
    assert found.times, found.error
    config = parse(["--es", es_node.url.replace("127.0.0.1", host)], {"HOME": "/"})
    elastic = Elastic(config, Secrets(()))
    assert elastic.client.cluster.health()["status"]
    elastic.close()
    with StubKibana() as stub:
        kibana = KibanaClient(parse(["--kibana", f"http://{host}:{stub.port}"], {"HOME": "/"}), Secrets(()))
        assert kibana.status() == stub.version
        kibana.close()


def test_a_worker_reads_through_a_proxy_and_logs_its_url(
    jetstream: Simulator, es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    jetstream.generate(500)
    with HttpProxy() as proxy:
        with_credentials = proxy.url.replace("//", "//ann:ge%20heim@")
        options = (
            *("--jetstream", f"ws://jetstream.example:{jetstream.port}", "--since", "0", "--no-kibana"),
            *("--es", es_node.url, "--index", fresh_index_prefix, "--protocol", "v2", "--compress", "on"),
            *("--log-level", "debug"),
        )
        environment = dict.fromkeys(VARIABLES, with_credentials) | {"NO_PROXY": "", "no_proxy": ""}
        with Worker(*options, home=tmp_path, env=environment) as worker:
            worker.wait_for(f"Jetstream: connecting through proxy {proxy.url}$")
            wait_for_documents(es, fresh_index_prefix, 500)
            assert worker.stop() == 0
        assert "zstd dictionary" in worker.log
        assert "ge heim" not in worker.log
        assert "ge%20heim" not in worker.log
        token = base64.b64encode(b"ann:ge heim").decode()
        assert token not in worker.log
        address = f"jetstream.example:{jetstream.port}"
        request_lines = {head.split("\r\n")[0].split("?")[0] for head in proxy.requests}
        dictionary = "/xrpc/network.bsky.jetstream.getZstdDictionary"
        assert request_lines == {f"CONNECT {address} HTTP/1.1", f"GET http://{address}{dictionary} HTTP/1.1"}
        assert all(f"Proxy-Authorization: Basic {token}" in head for head in proxy.requests)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_the_error_of_a_failing_proxy_has_its_url(environment: Environment) -> None:
    environment(HTTP_PROXY="http://ann:geheim@127.0.0.1:9")
    (found,) = probe_servers(["ws://jetstream.example:6008"])
    assert found.error == "through proxy http://127.0.0.1:9: Connection refused"
    with HttpProxy(status=407) as proxy:
        environment(HTTP_PROXY=proxy.url)
        (found,) = probe_servers(["ws://jetstream.example:6008"])
    assert found.error.startswith(f"through proxy {proxy.url}: ")
    assert "407" in found.error
