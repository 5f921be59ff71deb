"""The page for a worker that is not running and the index of a test: as HTML, parsed, or served."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

from elasticsearch import Elasticsearch

from slurp.addresses import Address
from slurp.elastic.templates import ACTORS_INDEX, TRENDS_INDEX
from slurp.web.history import History
from slurp.web.http_server import HttpServer, Request
from slurp.web.page import Page
from slurp.web.queries import PageQueries
from slurp.web.web_server import Pages
from tests.harness import InProcess, commit
from tests.idle_worker import IdleWorker

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'`{{7*7}}"


class ParsedPage(HTMLParser):
    """A page as a browser parses it: tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


class RenderedPage:
    """The page for a worker and the index of a test."""

    def __init__(self, worker: IdleWorker, index: str) -> None:
        self.worker = worker
        self.history = History(worker.status)
        elastic = worker.probe._elastic
        self.queries = PageQueries(elastic, worker.probe, index, worker.secrets.scrub)
        self.page = Page(worker.status, worker.health, self.history, self.queries, "1.2.3")

    def html(self, **parameters: str) -> str:
        response = self.page.render(Request("/", parameters))
        assert response.content_type == "text/html; charset=utf-8"
        return response.body.decode()

    def parsed(self, **parameters: str) -> ParsedPage:
        return ParsedPage(self.html(**parameters))


def post(number: int, text: str = "good morning", **more: Any) -> bytes:
    return commit(number, {"$type": "app.bsky.feed.post", "text": text, **more})


def linking(uri: str, text: str = "look at this") -> dict[str, Any]:
    feature = {"$type": "app.bsky.richtext.facet#link", "uri": uri}
    return {"facets": [{"index": {"byteStart": 0, "byteEnd": len(text)}, "features": [feature]}]}


def fill(indexer: InProcess, es: Elasticsearch, *frames: bytes) -> None:
    indexer.feed(frames)
    es.indices.refresh(index=f"{indexer.config.index}-*")


def fill_with_evil(indexer: InProcess, es: Elasticsearch) -> None:
    """Index events with EVIL in all untrusted texts, and a document that no worker would write."""
    did = f"did:plc:{EVIL}"
    names = {"did": did, "handle": f"handle{EVIL}", "display_name": f"name{EVIL}"}
    es.index(index=ACTORS_INDEX, id=did, document=names, refresh=True)
    hour = {
        "index": indexer.index,
        "interval": "hour",
        "@timestamp": "2026-11-28T14:00:00Z",
        "rank": 1,
    }
    row = {**hour, **names, "text": f"row{EVIL}", "url": "javascript:alert(6)", "labels": [EVIL], "count": 7}
    for measure in ("posts_by_likes", "people_by_followers"):
        es.index(index=TRENDS_INDEX, document={**row, "measure": measure}, refresh=True)
    record = {
        "$type": "app.bsky.feed.post",
        "text": f"text{EVIL}",
        "langs": [f"en{EVIL}", "pt"],
        "tags": [f"tag{EVIL}"],
        **linking(f"https://example.com/{EVIL}"),
    }
    foreign = {
        "did": did,
        "kind": "commit",
        "commit": {"collection": "app.bsky.feed.post", "operation": "create"},
        "url": "javascript:alert(3)",
        "text": f"text{EVIL}",
        **{name: [f"{name}{EVIL}"] for name in ("lang", "tags", "tags_folded")},
        "langs": [f"lang{EVIL}"],
        "domains": [f"domain{EVIL}"],
        "links": ["javascript:alert(4)"],
        "media": {"kinds": [EVIL], "count": 1},
        "reply": {"parent": {"url": "data:text/html,<script>alert(5)</script>"}},
        "event": {"ingested": datetime.now(UTC).isoformat()},
    }
    fill(
        *(indexer, es),
        commit(1, record, did=did, rkey=f"rkey{EVIL}"),
        commit(2, {"$type": f"evil{EVIL}"}, collection=f"app.evil.{EVIL}"),
    )
    es.index(index=indexer.today, document=foreign, refresh=True)


@contextmanager
def served(page: RenderedPage) -> Iterator[str]:
    """Serve the page on a free port; the context is its URL."""
    worker, stop = page.worker, threading.Event()
    pages = Pages(worker.health, worker.metrics, page.page)
    server = HttpServer(Address("127.0.0.1", 0), pages.handle, page.history.step)
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        yield f"http://{server.address}"
    finally:
        stop.set()
        thread.join(5)
