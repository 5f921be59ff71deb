"""TLS to Elasticsearch by the fingerprint of its CA, which Elasticsearch prints when it is set up.

The client library has an option of that name, but then checks neither host names nor whether the chain is
valid. Here the fingerprint only finds the CA among the certificates that the server sends; the connection is
then verified by that CA as with `--es-ca`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

_TIMEOUT = 5.0


class PinnedContext(ssl.SSLContext):
    """Believes in the one CA that has a certain fingerprint. Made by `pinned`."""

    fingerprint: str
    looking: ssl.SSLContext
    known = False

    def wrap_socket(self, sock: Any, *args: Any, **options: Any) -> Any:
        """As that of an SSLContext; the first time the CA is looked for, by a connection of its own."""
        if not self.known:
            self._find(sock.getpeername()[:2], options.get("server_hostname"), sock.gettimeout())
        return super().wrap_socket(sock, *args, **options)

    def _find(self, address: tuple[str, int], name: str | None, timeout: float | None) -> None:
        with (
            socket.create_connection(address, timeout=timeout or _TIMEOUT) as plain,
            self.looking.wrap_socket(plain, server_hostname=name) as looking,
        ):
            for certificate in _chain(looking):
                if sha256(certificate).hexdigest() == self.fingerprint:
                    self.load_verify_locations(cadata=certificate)
                    self.known = True
                    return
        raise ssl.SSLCertVerificationError(
            1,
            "no certificate that the server sends has the fingerprint of --es-ca-fingerprint; "
            "a CA that it does not send needs --es-ca",
        )


def pinned(fingerprint: str, cert: Path | None, key: Path | None) -> PinnedContext:
    """Return a context that verifies by the CA with this SHA-256, and shows the client certificate `cert`."""
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # What it sees is not believed, and no request is sent by it.
    looking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    looking.check_hostname, looking.verify_mode = False, ssl.CERT_NONE
    for one in (context, looking):
        if cert is not None:
            one.load_cert_chain(cert, key)
    context.fingerprint, context.looking = fingerprint, looking
    return context


def _chain(connection: ssl.SSLSocket) -> Iterator[bytes]:
    """Yield the certificates that a server has sent, in DER."""
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        yield from connection.get_unverified_chain()
        return
    for certificate in connection._sslobj.get_unverified_chain():  # type: ignore[attr-defined]
        yield ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
