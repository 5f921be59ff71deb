"""Fixtures with a real Elasticsearch: one node for all xdist workers, and nodes for single tests."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, Elasticsearch

from slurp.embedded.data_folder import DEFAULT_VERSION
from slurp.embedded.node import EmbeddedNode
from tests.shared_node import NODE_TIMEOUT, SharedNode

PASSWORD = "changeme"

OwnNode = Callable[..., EmbeddedNode]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--es-version", default=DEFAULT_VERSION, help="Elasticsearch release of the test nodes (%(default)s)"
    )


def client_for(node: EmbeddedNode, password: str = PASSWORD) -> Elasticsearch:
    """Return a client that does not retry, so that a test sees the first response."""
    return Elasticsearch(
        node.url,
        basic_auth=("elastic", password),
        ca_certs=str(node.ca) if node.ca else DEFAULT,
        max_retries=0,
        request_timeout=30,
    )


@pytest.fixture(scope="session")
def es_version(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--es-version"))


def run_folder(config: pytest.Config) -> Path:
    """Return the temporary folder that all xdist workers of this run share."""
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return base.parent if hasattr(config, "workerinput") else base


# tryfirst: xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cluster_wide"):
            item.add_marker(pytest.mark.xdist_group("cluster_wide"))


# trylast: the fixtures have released the node by then.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        SharedNode(run_folder(session.config) / "es").wait_until_stopped()


@pytest.fixture(scope="session")
def shared_node(request: pytest.FixtureRequest, es_version: str) -> Iterator[EmbeddedNode]:
    """Yield the node that all xdist workers share. A test must not disturb the others on it."""
    with SharedNode(run_folder(request.config) / "es").use(es_version, PASSWORD) as node:
        yield node


@pytest.fixture(scope="session")
def cluster_wide_node(tmp_path_factory: pytest.TempPathFactory, es_version: str) -> Iterator[EmbeddedNode]:
    """Yield the node of the tests marked `cluster_wide`, which one xdist worker runs one after the other."""
    data = tmp_path_factory.mktemp("es") / "node"
    node = EmbeddedNode(data, port=0, version=es_version, password=PASSWORD)
    node.start(wait=NODE_TIMEOUT)
    with node:
        yield node


@pytest.fixture
def es_node(request: pytest.FixtureRequest) -> EmbeddedNode:
    """Return a running node. Tests that stop or overload a node use `own_node` instead.

    Tests that change or compare cluster-wide state (cluster settings, users, the state index) are marked
    `cluster_wide` and get another node than all other tests.
    """
    cluster_wide = request.node.get_closest_marker("cluster_wide")
    # Without groups, each xdist worker would start a node of its own for these tests.
    assert not cluster_wide or not hasattr(request.config, "workerinput") or "@" in request.node.nodeid
    node: EmbeddedNode = request.getfixturevalue("cluster_wide_node" if cluster_wide else "shared_node")
    return node


@pytest.fixture
def es(es_node: EmbeddedNode) -> Iterator[Elasticsearch]:
    """Yield a client of `es_node`."""
    with client_for(es_node) as client:
        yield client


@pytest.fixture
def fresh_index_prefix(es: Elasticsearch) -> Iterator[str]:
    """Yield a prefix for this test's indices and templates, like `t-1f09ab`; delete them afterwards."""
    prefix = f"t-{secrets.token_hex(3)}"
    yield prefix
    remove(es, prefix)


def remove(es: Elasticsearch, prefix: str) -> None:
    """Delete all indices and templates whose names start with `prefix`."""
    ignoring_404 = es.options(ignore_status=404)
    # By name: Elasticsearch rejects deletion by wildcard.
    for index in es.indices.get(index=f"{prefix}*", expand_wildcards="all"):
        ignoring_404.indices.delete(index=index)
    # Component templates last: Elasticsearch does not delete one that an index template uses.
    ignoring_404.indices.delete_index_template(name=f"{prefix}*")
    with contextlib.suppress(ApiError):  # an index template of another test may use it
        ignoring_404.cluster.delete_component_template(name=f"{prefix}*")


@pytest.fixture
def own_node(tmp_path: Path, es_version: str) -> Iterator[OwnNode]:
    """Yield a function that returns a new node for this test, not started: `own_node(settings={...})`.

    All of them are stopped at the end of the test.
    """
    nodes: list[EmbeddedNode] = []

    def make(name: str = "node", *, port: int = 0, **options: object) -> EmbeddedNode:
        options.setdefault("version", es_version)
        node = EmbeddedNode(tmp_path / name, port=port, **options)  # type: ignore[arg-type]
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.stop()
