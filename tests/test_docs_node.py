"""The Elasticsearch requests with curl in the documentation work on a real node."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from elasticsearch import Elasticsearch

from slurp.elastic.setup import create_own_index
from slurp.elastic.templates import STATE_INDEX
from slurp.embedded.node import EmbeddedNode
from tests.harness import InProcess

ROOT = Path(__file__).parents[1]
PAGES = {
    page: page.read_text("utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
_CURL = re.compile(r"`curl -u elastic:changeme (?:-X (\w+) )?'localhost:9200(/[^']+)'`")
COMMANDS = [(found[1] or "GET", found[2]) for text in PAGES.values() for found in _CURL.finditer(text)]


def test_every_curl_command_is_found() -> None:
    assert len(COMMANDS) == sum(text.count("localhost:9200/") for text in PAGES.values()) >= 5


@pytest.mark.parametrize(("method", "target"), COMMANDS)
def test_elasticsearch_accepts_the_documented_request(
    es: Elasticsearch,
    es_node: EmbeddedNode,
    fresh_index_prefix: str,
    tmp_path: Path,
    method: str,
    target: str,
) -> None:
    indexer = InProcess(es_node.url, fresh_index_prefix, tmp_path)
    indexer.feed(indexer.posts())
    create_own_index(es, STATE_INDEX)
    es.indices.create(index=f"{fresh_index_prefix}-2026.10.01")
    url = urlsplit(target.replace("bluesky-events", fresh_index_prefix))
    params = dict(parse_qsl(url.query, keep_blank_values=True))

    kind = "text/plain" if "_cat" in url.path else "application/json"
    response = es.perform_request(method, url.path, params=params, headers={"accept": kind})

    assert response.meta.status == 200
    if method == "DELETE":
        assert not es.indices.exists(index=url.path.removeprefix("/"))
    elif "_cat/indices" in url.path:
        assert indexer.today in str(response)
