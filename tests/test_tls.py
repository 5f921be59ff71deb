"""Whom we believe to be Elasticsearch, Kibana or Jetstream: TLS before real ones, wrong in each way."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from slurp.config import parse
from slurp.elastic.client import FAILURES, Elastic, describe, wait_until_ready
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Fatal
from slurp.jetstream.servers import probe
from slurp.jetstream.stream_range import oldest_event
from slurp.jetstream.zstd_dictionary import NoDictionary, fetch
from slurp.kibana import client
from slurp.logs import Secrets
from slurp.simulator.jetstream import Simulator
from tests.harness import reading, until
from tests.proxy import Proxy
from tests.stub_kibana import StubKibana

ZSTD = ("--protocol", "v2", "--compress", "on")


@dataclass(frozen=True)
class Authority:
    """A CA of the test's, the file that a user would name, and a server's identities by it."""

    file: Path
    stranger: Path
    good: ssl.SSLContext
    elsewhere: ssl.SSLContext
    expired: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("ca")
    ours, theirs = trustme.CA(), trustme.CA()
    for ca, name in ((ours, "ours.pem"), (theirs, "theirs.pem")):
        ca.cert_pem.write_to_path(str(folder / name))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return Authority(
        file=folder / "ours.pem",
        stranger=folder / "theirs.pem",
        good=_context(ours.issue_cert("localhost")),
        elsewhere=_context(ours.issue_cert("elsewhere.example")),
        expired=_context(ours.issue_cert("localhost", not_after=yesterday)),
    )


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@dataclass(frozen=True)
class Case:
    """What the server shows, and why it must not be believed; `ca` is what we were told to believe in."""

    shows: str
    ca: str
    reason: str


BAD = {
    "no CA": Case("good", "", "unable to get local issuer|self-signed certificate in certificate chain"),
    "wrong CA": Case("good", "stranger", "unable to get local issuer|self-signed certificate in certificate"),
    "wrong name": Case("elsewhere", "file", "Hostname mismatch|doesn't match"),
    "expired": Case("expired", "file", "certificate has expired"),
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> Case:
    return BAD[request.param]


def certificates(authority: Authority, case: Case) -> Path | None:
    return getattr(authority, case.ca) if case.ca else None


def options(name: str, ca: Path | None) -> tuple[str, ...]:
    return (name, str(ca)) if ca else ()


# Jetstream


@pytest.fixture
def busy(jetstream: Simulator) -> Iterator[Simulator]:
    jetstream.generate(50)
    yield jetstream


@pytest.mark.parametrize("more", [("--protocol", "v1"), ZSTD])
def test_a_jetstream_that_our_ca_vouches_for_is_read(
    busy: Simulator, authority: Authority, more: tuple[str, ...]
) -> None:
    with Proxy(busy.port, authority.good) as proxy:
        with reading(proxy.url, options=(*more, "--jetstream-ca", str(authority.file))) as run:
            until(lambda: len(run.frames) == 50)
        (found,) = probe([proxy.url], ca=authority.file)
        assert len(found.times) == 3
        assert oldest_event(proxy.url, ca=authority.file) is not None
        assert fetch(proxy.url, ca=authority.file).id == busy.dictionary_id


def test_a_jetstream_that_nobody_vouches_for_gets_no_request(
    busy: Simulator, authority: Authority, bad: Case, caplog: pytest.LogCaptureFixture
) -> None:
    ca = certificates(authority, bad)
    with Proxy(busy.port, getattr(authority, bad.shows)) as proxy:
        (found,) = probe([proxy.url], ca=ca)
        assert not found.times
        assert oldest_event(proxy.url, timeout=5, ca=ca) is None
        with pytest.raises(NoDictionary, match="SSLError"):
            fetch(proxy.url, ca=ca)
        with reading(proxy.url, options=options("--jetstream-ca", ca)):
            until(lambda: "can't connect: " in caplog.text)
    assert not busy.connections
    for told in (found.error, caplog.text):
        assert any(reason in told for reason in bad.reason.split("|")), told
        assert "(a CA of your own: --jetstream-ca)" in told


# Elasticsearch


def elastic(url: str, ca: Path | None) -> Elastic:
    return Elastic(parse(["--es", url, *options("--es-ca", ca)], {}), Secrets(()))


def test_an_elasticsearch_that_our_ca_vouches_for_is_used(
    es_node: EmbeddedNode, authority: Authority
) -> None:
    with Proxy(es_node.port, authority.good) as proxy:
        url = proxy.url.replace("wss:", "https:")
        config = parse(["--es", url, "--es-ca", str(authority.file)], {})
        assert "embedded" in wait_until_ready(elastic(url, authority.file), config, threading.Event())


def test_an_elasticsearch_that_nobody_vouches_for_gets_no_password(
    es_node: EmbeddedNode, authority: Authority, bad: Case
) -> None:
    ca = certificates(authority, bad)
    with Proxy(es_node.port, getattr(authority, bad.shows)) as proxy:
        url = proxy.url.replace("wss:", "https:")
        with pytest.raises(FAILURES) as refused:
            elastic(url, ca).client.cluster.health()
        told = describe(refused.value)
        assert told.startswith("TLS: ")
        assert told.endswith("(a CA of your own: --es-ca)")
        assert any(reason in told for reason in bad.reason.split("|")), told
        config = parse(["--es", url, "--wait", "100ms", *options("--es-ca", ca)], {})
        with pytest.raises(Fatal, match=r"is not ready after .*: TLS: "):
            wait_until_ready(elastic(url, ca), config, threading.Event())
        assert proxy.passed == 0


class Pinned(NamedTuple):
    """A CA with the server certificates of a test; `fingerprint` is how Elasticsearch would print it."""

    fingerprint: str
    cert: Path
    key: Path
    ours: trustme.CA
    folder: Path

    def server(self, leaf: trustme.LeafCert, *chain: trustme.CA, client: bool = False) -> ssl.SSLContext:
        """A server that sends this leaf and the certificates of `chain`, as Elasticsearch sends its CA."""
        file = self.folder / "server.pem"
        parts = (leaf.private_key_pem, *leaf.cert_chain_pems, *(ca.cert_pem for ca in chain))
        file.write_bytes(b"".join(part.bytes() for part in parts))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        if client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ours.configure_trust(context)
        return context


@pytest.fixture
def own_ca(tmp_path: Path) -> Pinned:
    ours = trustme.CA()
    digest = sha256(ssl.PEM_cert_to_DER_cert(ours.cert_pem.bytes().decode())).hexdigest().upper()
    mine = ours.issue_cert("worker.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    mine.cert_chain_pems[0].write_to_path(str(cert))
    mine.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    colons = ":".join(digest[at : at + 2] for at in range(0, 64, 2))
    return Pinned(colons, cert, key, ours, tmp_path)


def asked(proxy: Proxy, *more: str) -> str:
    """The status of the cluster behind a TLS server, as a worker with these options sees it."""
    url = proxy.url.replace("wss:", "https:")
    one = Elastic(parse(["--es", url, *more], {"HOME": "/"}), Secrets(()))
    try:
        return str(one.client.cluster.health()["cluster_name"])
    finally:
        one.close()


def test_a_ca_is_known_by_its_fingerprint(es_node: EmbeddedNode, own_ca: Pinned) -> None:
    leaf = own_ca.ours.issue_cert("localhost")
    with Proxy(es_node.port, own_ca.server(leaf, own_ca.ours)) as proxy:
        assert "embedded" in asked(proxy, "--es-ca-fingerprint", own_ca.fingerprint)


def test_the_ca_in_the_chain_is_not_enough_for_its_fingerprint(es_node: EmbeddedNode, own_ca: Pinned) -> None:
    """Its certificate is public: whoever is in between can send it behind one of their own."""
    theirs = trustme.CA()
    servers = {
        "other": own_ca.server(theirs.issue_cert("localhost"), theirs),
        "other, with our CA behind it": own_ca.server(theirs.issue_cert("localhost"), own_ca.ours),
        "elsewhere": own_ca.server(own_ca.ours.issue_cert("elsewhere.example"), own_ca.ours),
    }
    reasons = {
        "other": "no certificate that the server sends has the fingerprint",
        "other, with our CA behind it": "unable to get|signature|self-signed|certificate verify failed",
        "elsewhere": "Hostname mismatch|doesn't match",
    }
    for name, context in servers.items():
        with Proxy(es_node.port, context) as proxy:
            with pytest.raises(FAILURES) as refused:
                asked(proxy, "--es-ca-fingerprint", own_ca.fingerprint)
            assert re.search(reasons[name], describe(refused.value)), (name, describe(refused.value))
            assert not [line for line in proxy.requests if line.startswith(b"GET")], name


@pytest.mark.parametrize("pins", [True, False])
def test_a_client_certificate_is_shown(es_node: EmbeddedNode, own_ca: Pinned, pins: bool) -> None:
    leaf = own_ca.ours.issue_cert("localhost")
    ca = own_ca.folder / "ca.pem"
    own_ca.ours.cert_pem.write_to_path(str(ca))
    trust = ("--es-ca-fingerprint", own_ca.fingerprint) if pins else ("--es-ca", str(ca))
    with Proxy(es_node.port, own_ca.server(leaf, own_ca.ours, client=True)) as proxy:
        assert "embedded" in asked(proxy, *trust, "--es-cert", str(own_ca.cert), "--es-key", str(own_ca.key))
        both = own_ca.folder / "both.pem"
        both.write_bytes(own_ca.key.read_bytes() + own_ca.cert.read_bytes())
        assert "embedded" in asked(proxy, *trust, "--es-cert", str(both))
        with pytest.raises(FAILURES):
            asked(proxy, *trust)


def test_a_ca_counts_beside_a_node_without_tls(es_node: EmbeddedNode, authority: Authority) -> None:
    with Proxy(es_node.port, authority.good) as proxy:
        nodes = ("--es", proxy.url.replace("wss:", "https:"), "--es", es_node.url)
        one = Elastic(parse([*nodes, "--es-ca", str(authority.file)], {"HOME": "/"}), Secrets(()))
        # In turns.
        for _ in nodes:
            assert one.client.cluster.health()["status"]
        assert proxy.requests, "the node with TLS is used"
        one.close()


def test_client_certificates_that_can_not_be_used_are_told(
    own_ca: Pinned, capsys: pytest.CaptureFixture[str]
) -> None:
    https = ("--es", "https://localhost:9200")
    cert, key = str(own_ca.cert), str(own_ca.key)
    for options, reason in (
        ((*https, "--es-key", key), "--es-key needs --es-cert"),
        ((*https, "--es-cert", "/nowhere"), "--es-cert: there is no file /nowhere"),
        ((*https, "--es-cert", cert, "--es-key", "/nowhere"), "--es-key: there is no file /nowhere"),
        ((*https, "--es-cert", cert), f"--es-cert: can't use {cert}: certificate and key are not in PEM"),
        ((*https, "--es-cert", key, "--es-key", key), f"--es-cert: can't use {key} with {key}"),
        (("--es-cert", cert, "--es-key", key), "--es-cert is for https, and --es is http"),
        (
            ("--es-ca-fingerprint", "ab:cd"),
            "--es-ca-fingerprint: 'ab:cd' is not the SHA-256",
        ),
        (("--es-ca-fingerprint", "ab" * 32), "--es-ca-fingerprint is for https, and --es is http"),
        ((*https, "--es-ca-fingerprint", "ab" * 32, "--es-ca", cert), "give one of them"),
    ):
        with pytest.raises(SystemExit) as stopped:
            parse(options, {"HOME": "/"})
        assert stopped.value.code == 2
        assert reason in capsys.readouterr().err
    own_ca.key.chmod(0o644)
    (warning,) = parse([*https, "--es-cert", cert, "--es-key", key], {"HOME": "/"}).warnings
    assert warning.startswith("--es-key: other users can read")


# Kibana


def kibana(url: str, ca: Path | None) -> client.Kibana:
    return client.Kibana(parse(["--kibana", url, *options("--es-ca", ca)], {}), Secrets(()))


def test_a_kibana_that_our_ca_vouches_for_is_used(authority: Authority) -> None:
    with StubKibana() as stub, Proxy(stub.port, authority.good) as proxy:
        assert kibana(proxy.url.replace("wss:", "https:"), authority.file).status() == stub.version


def test_a_kibana_that_nobody_vouches_for_gets_no_password(authority: Authority, bad: Case) -> None:
    with StubKibana() as stub, Proxy(stub.port, getattr(authority, bad.shows)) as proxy:
        with pytest.raises(client.NotReady, match=r"TLS: .*a CA of your own: --es-ca"):
            kibana(proxy.url.replace("wss:", "https:"), certificates(authority, bad)).status()
        assert proxy.passed == 0


# Files


@pytest.mark.parametrize("option", ["--es-ca", "--jetstream-ca"])
def test_a_file_without_a_certificate_is_told_at_the_start(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text, reason in (
        ("empty.pem", "", "it holds no certificate in PEM"),
        ("other.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n", "it holds no certificate in PEM"),
        ("none.pem", None, "there is no file"),
    ):
        file = tmp_path / name
        if text is not None:
            file.write_text(text)
        with pytest.raises(SystemExit) as stopped:
            parse([option, str(file)], {})
        assert stopped.value.code == 2
        assert reason in capsys.readouterr().err
