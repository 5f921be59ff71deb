"""Proxy selection from the environment variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

The HTTP and WebSocket libraries interpret these variables differently. websocket-client bypasses the proxy
for localhost up to release 1.8 only, applies `example.com` in NO_PROXY to subdomains from 1.9 on only, and
ignores ALL_PROXY. This module selects the proxy for all of them in the same way. Connections to Elasticsearch
and Kibana never use a proxy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from slurp.addresses import is_loopback

# Proxies are always connected to by plain HTTP: many users write https:// for such a proxy.
_SCHEMES = ("http", "https")
_HTTP = {"ws": "http", "wss": "https"}


class Proxy(NamedTuple):
    """An HTTP proxy. `credentials` is the percent-encoded `user:password` of its URL, or ''."""

    host: str
    port: int
    credentials: str

    def __str__(self) -> str:
        """Return the URL without the credentials."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def auth(self) -> tuple[str, str] | None:
        """User name and password, decoded; None without credentials."""
        user, _, password = self.credentials.partition(":")
        return (unquote(user), unquote(password)) if user else None

    @property
    def url(self) -> str:
        """The URL with the credentials, which must not be logged."""
        return str(self).replace("//", f"//{self.credentials}@", 1) if self.credentials else str(self)


class BadProxy(ValueError):
    """The environment names a proxy that cannot be used. The message says how to fix it, without password."""


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for an `http(s)` or `ws(s)` URL, None for a direct connection.

    Loopback addresses are always connected to directly, as a proxy cannot reach them. Raises BadProxy.
    """
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        return None
    scheme = _HTTP.get(parts.scheme, parts.scheme)
    http_url = parts._replace(scheme=scheme).geturl()
    found = select_proxy(http_url, get_environ_proxies(http_url))
    if not found:
        return None
    return _parse(found if "://" in found else f"http://{found}")


def requests_proxies(url: str) -> dict[str, str]:
    """Return the proxies for `requests` to an `http(s)` URL. Raises BadProxy."""
    proxy = proxy_for(url)
    # An empty string keeps `requests` from reading the environment itself.
    return dict.fromkeys(_SCHEMES, "" if proxy is None else proxy.url)


def proxies_of(urls: Iterable[str]) -> list[str]:
    """Return the sorted proxies used for these URLs, without credentials and without unusable ones."""
    found = set()
    for url in urls:
        with contextlib.suppress(BadProxy):  # connecting will report it
            if (proxy := proxy_for(url)) is not None:
                found.add(str(proxy))
    return sorted(found)


def _parse(text: str) -> Proxy:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    # A password with "#", "/" or "?" is parsed as part of the path, query or fragment.
    if not host or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise BadProxy("invalid proxy URL in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY (use http://HOST:PORT)")
    if parts.scheme not in _SCHEMES:
        raise BadProxy(
            f"{parts.scheme}:// proxies are not supported (set HTTPS_PROXY and HTTP_PROXY to an http:// "
            "proxy, or add the host to NO_PROXY)"
        )
    return Proxy(host, port or 80, parts.netloc.rpartition("@")[0])
