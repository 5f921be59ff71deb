"""Which proxy a connection goes through, by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

The libraries below do not agree on these variables. websocket-client left localhost out up to 1.8 and does
not since 1.9, takes `example.com` in NO_PROXY for its subdomains since 1.9 only, and knows no ALL_PROXY. So
it is decided here, for all of them alike. Elasticsearch and Kibana are never reached through a proxy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from slurp.addresses import is_loopback

# What https:// names is spoken to as http:// is: many write it and mean that.
_SCHEMES = ("http", "https")
_HTTP = {"ws": "http", "wss": "https"}


class Proxy(NamedTuple):
    """An HTTP proxy. `credentials` are `user:password` as they stand in a URL, '' without."""

    host: str
    port: int
    credentials: str

    def __str__(self) -> str:
        """Its URL without the credentials."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def auth(self) -> tuple[str, str] | None:
        """User and password."""
        user, _, password = self.credentials.partition(":")
        return (unquote(user), unquote(password)) if user else None

    @property
    def url(self) -> str:
        """With the credentials: not to be shown."""
        return str(self).replace("//", f"//{self.credentials}@", 1) if self.credentials else str(self)


class BadProxy(ValueError):
    """The environment names a proxy that can't be used; the text says what to do and holds no password."""


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy to reach an `http(s)` or `ws(s)` URL through, None for a direct connection.

    That is what the environment says, but for loopback, which no proxy can reach. Raises BadProxy.
    """
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        return None
    scheme = _HTTP.get(parts.scheme, parts.scheme)
    asked = parts._replace(scheme=scheme).geturl()
    found = select_proxy(asked, get_environ_proxies(asked))
    if not found:
        return None
    return _parsed(found if "://" in found else f"http://{found}")


def proxies_of(urls: Iterable[str]) -> list[str]:
    """Return the proxies that these URLs are reached through, as they can be shown."""
    shown = set()
    for url in urls:
        with contextlib.suppress(BadProxy):  # the connection will say so
            if (proxy := proxy_for(url)) is not None:
                shown.add(str(proxy))
    return sorted(shown)


def _parsed(text: str) -> Proxy:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    # With "#", "/" or "?" in it, a password ends up elsewhere in the URL.
    if not host or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise BadProxy("a proxy in the environment is not http://HOST:PORT: correct HTTPS_PROXY and its like")
    if parts.scheme not in _SCHEMES:
        raise BadProxy(
            f"{parts.scheme}:// proxies are not supported: name an http:// proxy in HTTPS_PROXY and "
            "HTTP_PROXY, or add the host to NO_PROXY"
        )
    return Proxy(host, port or 80, parts.netloc.rpartition("@")[0])
