"""TLS to Elasticsearch, Kibana and Jetstream, with valid and invalid server certificates."""

from __future__ import annotations

import re
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from slurp.config import parse
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.readiness import wait_until_ready
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Fatal
from slurp.jetstream.servers import probe_servers
from slurp.jetstream.stream_range import oldest_event
from slurp.jetstream.zstd_dictionary import NoDictionary, fetch_dictionary
from slurp.kibana import client
from slurp.logs import Secrets
from slurp.simulator.jetstream import Simulator
from tests.harness import reading, until
from tests.proxy import Proxy
from tests.stub_kibana import StubKibana

ZSTD = ("--protocol", "v2", "--compress", "on")


@dataclass(frozen=True)
class Authority:
    """A CA, and server certificates that it issued."""

    file: Path
    """The CA certificate, as a user passes it in an option."""
    other_file: Path
    """The certificate of another CA."""
    valid: ssl.SSLContext
    other_name: ssl.SSLContext
    expired: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("ca")
    ca, other_ca = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    other_ca.cert_pem.write_to_path(str(folder / "other.pem"))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return Authority(
        file=folder / "ca.pem",
        other_file=folder / "other.pem",
        valid=_context(ca.issue_cert("localhost")),
        other_name=_context(ca.issue_cert("elsewhere.example")),
        expired=_context(ca.issue_cert("localhost", not_after=yesterday)),
    )


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@dataclass(frozen=True)
class Case:
    """A server certificate that is not trusted. The fields name attributes of Authority."""

    certificate: str
    ca: str
    """The CA in the option, '' without the option."""
    reason: str
    """Texts of the error, separated by |."""


UNTRUSTED = {
    "no CA": Case("valid", "", "unable to get local issuer|self-signed certificate in certificate chain"),
    "wrong CA": Case(
        "valid", "other_file", "unable to get local issuer|self-signed certificate in certificate"
    ),
    "wrong name": Case("other_name", "file", "Hostname mismatch|doesn't match"),
    "expired": Case("expired", "file", "certificate has expired"),
}


@pytest.fixture(params=UNTRUSTED)
def untrusted(request: pytest.FixtureRequest) -> Case:
    return UNTRUSTED[request.param]


def ca_file(authority: Authority, case: Case) -> Path | None:
    return getattr(authority, case.ca) if case.ca else None


def options(name: str, ca: Path | None) -> tuple[str, ...]:
    return (name, str(ca)) if ca else ()


# Jetstream


@pytest.fixture
def with_events(jetstream: Simulator) -> Simulator:
    jetstream.generate(50)
    return jetstream


@pytest.mark.parametrize("more", [("--protocol", "v1"), ZSTD])
def test_a_jetstream_with_a_trusted_certificate_is_read(
    with_events: Simulator, authority: Authority, more: tuple[str, ...]
) -> None:
    with Proxy(with_events.port, authority.valid) as proxy:
        with reading(proxy.url, options=(*more, "--jetstream-ca", str(authority.file))) as run:
            until(lambda: len(run.frames) == 50)
        (result,) = probe_servers([proxy.url], ca=authority.file)
        assert len(result.times) == 3
        assert oldest_event(proxy.url, ca=authority.file) is not None
        assert fetch_dictionary(proxy.url, ca=authority.file).id == with_events.dictionary_id


def test_a_jetstream_with_an_untrusted_certificate_receives_no_request(
    with_events: Simulator, authority: Authority, untrusted: Case, caplog: pytest.LogCaptureFixture
) -> None:
    ca = ca_file(authority, untrusted)
    with Proxy(with_events.port, getattr(authority, untrusted.certificate)) as proxy:
        (result,) = probe_servers([proxy.url], ca=ca)
        assert not result.times
        assert oldest_event(proxy.url, timeout=5, ca=ca) is None
        with pytest.raises(NoDictionary, match="SSLError"):
            fetch_dictionary(proxy.url, ca=ca)
        with reading(proxy.url, options=options("--jetstream-ca", ca)):
            until(lambda: "cannot connect: " in caplog.text)
    assert not with_events.connections
    for text in (result.error, caplog.text):
        assert any(reason in text for reason in untrusted.reason.split("|")), text
        assert "(a CA of your own: --jetstream-ca)" in text


# Elasticsearch


def connect(url: str, ca: Path | None) -> Elastic:
    return Elastic(parse(["--es", url, *options("--es-ca", ca)], {}), Secrets(()))


def test_an_elasticsearch_with_a_trusted_certificate_is_used(
    es_node: EmbeddedNode, authority: Authority
) -> None:
    with Proxy(es_node.port, authority.valid) as proxy:
        url = proxy.url.replace("wss:", "https:")
        config = parse(["--es", url, "--es-ca", str(authority.file)], {})
        assert "embedded" in wait_until_ready(connect(url, authority.file), config, threading.Event())


def test_an_elasticsearch_with_an_untrusted_certificate_receives_no_password(
    es_node: EmbeddedNode, authority: Authority, untrusted: Case
) -> None:
    ca = ca_file(authority, untrusted)
    with Proxy(es_node.port, getattr(authority, untrusted.certificate)) as proxy:
        url = proxy.url.replace("wss:", "https:")
        with pytest.raises(FAILURES) as raised:
            connect(url, ca).client.cluster.health()
        message = describe(raised.value)
        assert message.startswith("TLS: ")
        assert message.endswith("(use --es-ca for a private CA)")
        assert any(reason in message for reason in untrusted.reason.split("|")), message
        config = parse(["--es", url, "--wait", "100ms", *options("--es-ca", ca)], {})
        with pytest.raises(Fatal, match=r"is not ready after .*: TLS: "):
            wait_until_ready(connect(url, ca), config, threading.Event())
        assert proxy.passed == 0


class PrivateCA(NamedTuple):
    """A CA whose fingerprint is used, with a client certificate."""

    fingerprint: str
    """In the format of Elasticsearch."""
    cert: Path
    key: Path
    ca: trustme.CA
    folder: Path

    def server(self, leaf: trustme.LeafCert, *chain: trustme.CA, client: bool = False) -> ssl.SSLContext:
        """Return the context of a server that sends a leaf certificate and the CA certificates of `chain`.

        `client` makes it require a client certificate.
        """
        file = self.folder / "server.pem"
        parts = (leaf.private_key_pem, *leaf.cert_chain_pems, *(ca.cert_pem for ca in chain))
        file.write_bytes(b"".join(part.bytes() for part in parts))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        if client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context


@pytest.fixture
def private_ca(tmp_path: Path) -> PrivateCA:
    ca = trustme.CA()
    digest = sha256(ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode())).hexdigest().upper()
    client_cert = ca.issue_cert("worker.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    client_cert.cert_chain_pems[0].write_to_path(str(cert))
    client_cert.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    colons = ":".join(digest[at : at + 2] for at in range(0, 64, 2))
    return PrivateCA(colons, cert, key, ca, tmp_path)


def cluster_name(proxy: Proxy, *more: str) -> str:
    """Return the name of the cluster behind a TLS server, with a client that has these options."""
    url = proxy.url.replace("wss:", "https:")
    elastic = Elastic(parse(["--es", url, *more], {"HOME": "/"}), Secrets(()))
    try:
        return str(elastic.client.cluster.health()["cluster_name"])
    finally:
        elastic.close()


def test_a_ca_is_trusted_by_its_fingerprint(es_node: EmbeddedNode, private_ca: PrivateCA) -> None:
    leaf = private_ca.ca.issue_cert("localhost")
    with Proxy(es_node.port, private_ca.server(leaf, private_ca.ca)) as proxy:
        assert "embedded" in cluster_name(proxy, "--es-ca-fingerprint", private_ca.fingerprint)


def test_a_chain_that_only_contains_the_ca_is_rejected(es_node: EmbeddedNode, private_ca: PrivateCA) -> None:
    """The CA certificate is public: an attacker can send it after a certificate of another CA."""
    other_ca = trustme.CA()
    servers = {
        "other": private_ca.server(other_ca.issue_cert("localhost"), other_ca),
        "other, followed by the CA": private_ca.server(other_ca.issue_cert("localhost"), private_ca.ca),
        "other name": private_ca.server(private_ca.ca.issue_cert("elsewhere.example"), private_ca.ca),
    }
    reasons = {
        "other": "none of the certificates that the server sends has the fingerprint",
        "other, followed by the CA": "unable to get|signature|self-signed|certificate verify failed",
        "other name": "Hostname mismatch|doesn't match",
    }
    for name, context in servers.items():
        with Proxy(es_node.port, context) as proxy:
            with pytest.raises(FAILURES) as raised:
                cluster_name(proxy, "--es-ca-fingerprint", private_ca.fingerprint)
            assert re.search(reasons[name], describe(raised.value)), (name, describe(raised.value))
            assert not [line for line in proxy.requests if line.startswith(b"GET")], name


@pytest.mark.parametrize("by_fingerprint", [True, False])
def test_a_client_certificate_is_sent(
    es_node: EmbeddedNode, private_ca: PrivateCA, by_fingerprint: bool
) -> None:
    leaf = private_ca.ca.issue_cert("localhost")
    ca = private_ca.folder / "ca.pem"
    private_ca.ca.cert_pem.write_to_path(str(ca))
    trust = ("--es-ca-fingerprint", private_ca.fingerprint) if by_fingerprint else ("--es-ca", str(ca))
    with Proxy(es_node.port, private_ca.server(leaf, private_ca.ca, client=True)) as proxy:
        assert "embedded" in cluster_name(
            proxy, *trust, "--es-cert", str(private_ca.cert), "--es-key", str(private_ca.key)
        )
        both = private_ca.folder / "both.pem"
        both.write_bytes(private_ca.key.read_bytes() + private_ca.cert.read_bytes())
        assert "embedded" in cluster_name(proxy, *trust, "--es-cert", str(both))
        with pytest.raises(FAILURES):
            cluster_name(proxy, *trust)


def test_a_ca_is_used_also_if_another_node_has_no_tls(es_node: EmbeddedNode, authority: Authority) -> None:
    with Proxy(es_node.port, authority.valid) as proxy:
        nodes = ("--es", proxy.url.replace("wss:", "https:"), "--es", es_node.url)
        elastic = Elastic(parse([*nodes, "--es-ca", str(authority.file)], {"HOME": "/"}), Secrets(()))
        # Round robin.
        for _ in nodes:
            assert elastic.client.cluster.health()["status"]
        assert proxy.requests, "the node with TLS is used"
        elastic.close()


def test_invalid_client_certificates_are_reported(
    private_ca: PrivateCA, capsys: pytest.CaptureFixture[str]
) -> None:
    https = ("--es", "https://localhost:9200")
    cert, key = str(private_ca.cert), str(private_ca.key)
    for options, reason in (
        ((*https, "--es-key", key), "--es-key requires --es-cert"),
        ((*https, "--es-cert", "/nowhere"), "--es-cert: no such file: /nowhere"),
        ((*https, "--es-cert", cert, "--es-key", "/nowhere"), "--es-key: no such file: /nowhere"),
        (
            (*https, "--es-cert", cert),
            f"--es-cert: cannot use {cert}: certificate or key is not in PEM",
        ),
        ((*https, "--es-cert", key, "--es-key", key), f"--es-cert: cannot use {key} with {key}"),
        (("--es-cert", cert, "--es-key", key), "--es-cert requires an https:// URL in --es"),
        (
            ("--es-ca-fingerprint", "ab:cd"),
            "--es-ca-fingerprint: invalid fingerprint 'ab:cd' (use SHA-256",
        ),
        (("--es-ca-fingerprint", "ab" * 32), "--es-ca-fingerprint requires an https:// URL in --es"),
        (
            (*https, "--es-ca-fingerprint", "ab" * 32, "--es-ca", cert),
            "--es-ca and --es-ca-fingerprint are mutually exclusive (use one of them)",
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            parse(options, {"HOME": "/"})
        assert stopped.value.code == 2
        assert reason in capsys.readouterr().err
    private_ca.key.chmod(0o644)
    (warning,) = parse([*https, "--es-cert", cert, "--es-key", key], {"HOME": "/"}).warnings
    assert warning.startswith("--es-key: other users can read")


# Kibana


def kibana(url: str, ca: Path | None) -> client.KibanaClient:
    return client.KibanaClient(parse(["--kibana", url, *options("--es-ca", ca)], {}), Secrets(()))


def test_a_kibana_with_a_trusted_certificate_is_used(authority: Authority) -> None:
    with StubKibana() as stub, Proxy(stub.port, authority.valid) as proxy:
        assert kibana(proxy.url.replace("wss:", "https:"), authority.file).status() == stub.version


def test_a_kibana_with_an_untrusted_certificate_receives_no_password(
    authority: Authority, untrusted: Case
) -> None:
    with StubKibana() as stub, Proxy(stub.port, getattr(authority, untrusted.certificate)) as proxy:
        with pytest.raises(client.NotReady, match=r"TLS: .*for a private CA set --es-ca"):
            kibana(proxy.url.replace("wss:", "https:"), ca_file(authority, untrusted)).status()
        assert proxy.passed == 0


# Files


@pytest.mark.parametrize("option", ["--es-ca", "--jetstream-ca"])
def test_a_file_without_a_certificate_is_reported_at_startup(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text, reason in (
        ("empty.pem", "", "it contains no PEM certificate"),
        ("other.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n", "it contains no PEM certificate"),
        ("none.pem", None, "no such file"),
    ):
        file = tmp_path / name
        if text is not None:
            file.write_text(text)
        with pytest.raises(SystemExit) as stopped:
            parse([option, str(file)], {})
        assert stopped.value.code == 2
        assert reason in capsys.readouterr().err
