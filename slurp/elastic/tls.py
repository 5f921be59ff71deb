"""TLS to Elasticsearch, verified by the CA fingerprint that Elasticsearch prints during its setup.

The client library has an option of that name, but it then checks neither the host name nor the certificate
chain. Here the fingerprint only selects the CA among the certificates that the server sends; the connection
is then verified with that CA, as with `--es-ca`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

# Seconds, for sockets without a time-out.
_DEFAULT_TIMEOUT = 5.0


class PinnedContext(ssl.SSLContext):
    """A context that trusts only the CA with a given fingerprint. Created by `pinned_context`."""

    fingerprint: str
    probe_context: ssl.SSLContext
    is_ca_loaded = False

    def wrap_socket(self, sock: Any, *args: Any, **options: Any) -> Any:
        """Wrap a socket as SSLContext does. The first call loads the CA over a connection of its own."""
        if not self.is_ca_loaded:
            self._load_ca(sock.getpeername()[:2], options.get("server_hostname"), sock.gettimeout())
        return super().wrap_socket(sock, *args, **options)

    def _load_ca(self, address: tuple[str, int], name: str | None, timeout: float | None) -> None:
        with (
            socket.create_connection(address, timeout=timeout or _DEFAULT_TIMEOUT) as plain,
            self.probe_context.wrap_socket(plain, server_hostname=name) as probe,
        ):
            for certificate in _received_chain(probe):
                if sha256(certificate).hexdigest() == self.fingerprint:
                    self.load_verify_locations(cadata=certificate)
                    self.is_ca_loaded = True
                    return
        raise ssl.SSLCertVerificationError(
            1,
            "none of the certificates that the server sends has the fingerprint of --es-ca-fingerprint; "
            "use --es-ca for a CA that the server does not send",
        )


def pinned_context(fingerprint: str, cert: Path | None, key: Path | None) -> PinnedContext:
    """Return a context that verifies the server with the CA of this SHA-256 fingerprint.

    `cert` and `key` are the client certificate, if there is one.
    """
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # Used only to receive the certificates: it verifies nothing, and no request is sent over it.
    probe_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    probe_context.check_hostname, probe_context.verify_mode = False, ssl.CERT_NONE
    for each in (context, probe_context):
        if cert is not None:
            each.load_cert_chain(cert, key)
    context.fingerprint, context.probe_context = fingerprint, probe_context
    return context


def _received_chain(connection: ssl.SSLSocket) -> Iterator[bytes]:
    """Yield the certificates that the server has sent, in DER."""
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        yield from connection.get_unverified_chain()
        return
    for certificate in connection._sslobj.get_unverified_chain():  # type: ignore[attr-defined]
        yield ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
