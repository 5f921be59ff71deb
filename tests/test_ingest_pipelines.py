"""What a user's ingest pipelines do to single documents. The gateway stands in for those of a full node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.documents.identity import event_id
from slurp.embedded import EmbeddedNode
from tests.gateway import DROPPED, Gateway
from tests.harness import InProcess
from tests.worker import documents

Json = dict[str, Any]


@pytest.fixture
def gateway(es_node: EmbeddedNode) -> Iterator[Gateway]:
    with Gateway(es_node.port) as gateway:
        yield gateway


@pytest.fixture
def behind(gateway: Gateway, fresh_index_prefix: str, tmp_path: Path) -> InProcess:
    """As `indexer`, by way of the gateway."""
    return InProcess(gateway.url, fresh_index_prefix, tmp_path)


def id_of(frame: bytes) -> str:
    return event_id(orjson.loads(frame))


def test_documents_that_a_pipeline_drops_are_an_outcome_of_their_own(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    frames = behind.posts(20)
    unwanted = {id_of(frame) for frame in frames[5:8]}
    gateway.pipeline = lambda doc_id, source: DROPPED if doc_id in unwanted else None
    counted = behind.feed(frames)
    assert counted.adds_up
    assert (counted.indexed, counted.dropped, counted.quarantined) == (17, 3, 0)
    assert documents(es, fresh_index_prefix).keys() == {id_of(frame) for frame in frames} - unwanted
    assert behind.feed(frames[4:6]).duplicates == 1, "a dropped document is dropped again, and no duplicate"
