"""Connection requests that a Jetstream server rejects for their filter: the worker does not retry."""

from __future__ import annotations

from pathlib import Path

import pytest
from websocket import WebSocketBadStatusException

from slurp.config import parse
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Exit, Fatal
from slurp.jetstream.dialer import Dialer
from slurp.jetstream.subscription import Subscription
from slurp.simulator import protocol_v2
from slurp.simulator.jetstream import Simulator
from tests.worker import Worker

FILTER = ("--collections", "app.*")


def dial(jetstream: Simulator, *options: str) -> str:
    """Connect once, check that this raises Fatal with the usage exit code, and return its message."""
    config = parse([*options], {})
    with pytest.raises(Fatal) as caught:
        Dialer(config, Subscription.of(config)).connect(jetstream.url, None)
    assert caught.value.code is Exit.USAGE
    return str(caught.value)


@pytest.mark.parametrize("protocol", ["auto", "v2"])
def test_a_filter_that_v2_rejects_is_not_retried(jetstream: Simulator, protocol: str) -> None:
    message = dial(jetstream, "--protocol", protocol, *FILTER)
    assert message.endswith(
        " rejects the filter: InvalidRequest: invalid collection wildcard: app.*; correct --collections app.*"
    )
    assert len(jetstream.connections) == 1


def test_a_request_without_a_filter_that_v2_rejects_is_not_retried(jetstream: Simulator) -> None:
    jetstream.faults.refuse(400, protocol_v2.error_body("InvalidRequest", "no"))
    assert dial(jetstream).endswith("InvalidRequest: no; use another --jetstream host or --protocol v1")


def test_the_message_of_the_server_is_printable_and_bounded(jetstream: Simulator) -> None:
    jetstream.faults.refuse(
        400, protocol_v2.error_body("InvalidRequest", "\x1b[2J\nERROR forged" + "x" * 10_000)
    )
    message = dial(jetstream, *FILTER)
    assert message.isprintable()
    assert len(message) < 600


def test_v1_accepts_what_v2_rejects(jetstream: Simulator) -> None:
    config = parse(["--protocol", "v1", *FILTER], {})
    stream = Dialer(config, Subscription.of(config)).connect(jetstream.url, None)
    stream.connection.shutdown()
    assert stream.name == "v1"


def test_a_filter_that_v1_rejects_is_not_retried(jetstream: Simulator) -> None:
    dialer = Dialer(parse(["--protocol", "v1"], {}), Subscription("i", ("posts",), ("did:plc:a",)))
    with pytest.raises(Fatal) as caught:
        dialer.connect(jetstream.url, None)
    message = str(caught.value)
    assert "rejects the filter: HTTP 400 wantedCollections: 'posts' is neither an NSID nor" in message
    assert message.endswith("; correct --collections posts and --dids")
    assert caught.value.code is Exit.USAGE


@pytest.mark.parametrize("times", [1, 3])
def test_a_400_from_a_gateway_is_retried(jetstream: Simulator, times: int) -> None:
    config = parse(["--protocol", "v1", *FILTER], {})
    dialer = Dialer(config, Subscription.of(config))
    jetstream.faults.refuse(400, "<html>", times=times)
    for _ in range(2 if times == 3 else 1):
        with pytest.raises(WebSocketBadStatusException, match="400"):
            dialer.connect(jetstream.url, None)
    dialer.connect(jetstream.url, None).connection.shutdown()


def test_a_rejected_filter_exits_with_2_and_is_named(
    es_node: EmbeddedNode, fresh_index_prefix: str, jetstream: Simulator, tmp_path: Path
) -> None:
    jetstream.generate(10)
    with Worker(
        *(
            "--jetstream",
            jetstream.url,
            "--es",
            es_node.url,
            "--index",
            fresh_index_prefix,
            "--no-kibana",
            *FILTER,
        ),
        home=tmp_path,
    ) as worker:
        assert worker.exit_code() == 2
    assert "rejects the filter: InvalidRequest: invalid collection wildcard: app" in worker.log
