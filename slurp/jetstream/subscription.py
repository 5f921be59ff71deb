"""A subscription to a Jetstream server: filters, cursor and the URLs that request them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from slurp.config import Config

# Servers accept URLs of several hundred kilobytes, proxies in front of them do not: longer filters are sent
# in a message after the handshake.
_MAX_DIDS_IN_URL = 100
# Maximum characters of a filter in log and error messages.
_SHOWN = 200

V1_PATH = "/subscribe"
V2_PATH = "/xrpc/network.bsky.jetstream.subscribeEvents"


@dataclass(frozen=True, slots=True)
class Subscription:
    """The filters of a stream, and index and worker name. Together they identify a checkpoint."""

    index: str
    collections: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()
    worker: str = ""

    @classmethod
    def of(cls, config: Config) -> Subscription:
        return cls(config.index, config.collections, config.dids, config.worker_name)

    @property
    def filters(self) -> tuple[str, ...]:
        """Return the options that filter the stream, as on the command line; empty if there is none."""
        collections = f"--collections {','.join(self.collections)[:_SHOWN]}" if self.collections else ""
        return tuple(option for option in (collections, "--dids" if self.dids else "") if option)

    @property
    def key(self) -> str:
        """Return a hash that is equal for equal filters, index and worker, in any order of the filters."""
        canonical = json.dumps([self.index, sorted(self.collections), sorted(self.dids), self.worker])
        return blake2b(canonical.encode(), digest_size=12).hexdigest()

    def document_id(self, host: str) -> str:
        """Return the `_id` of this subscription's checkpoint at `host`."""
        return f"checkpoint:{self.index}:{self.worker or '-'}:{host[:200]}:{self.key}"

    def describe(self) -> Mapping[str, Any]:
        """Return the human-readable part of a checkpoint document."""
        return {
            "index": self.index,
            "worker": self.worker,
            "collections": self.collections,
            "dids": len(self.dids),
        }

    def url(self, server: str, cursor: int | None) -> str:
        """Return the v1 URL of a server for a stream from `cursor`; None is live."""
        parameters: list[tuple[str, str]] = []
        if self.needs_options_message:
            parameters.append(("requireHello", "true"))
        else:
            parameters += [("wantedCollections", nsid) for nsid in self.collections]
            parameters += [("wantedDids", did) for did in self.dids]
        if cursor is not None:
            parameters.append(("cursor", str(cursor)))
        query = urlencode(parameters)
        return f"{server}{V1_PATH}{'?' if query else ''}{query}"

    def v2_url(self, server: str, cursor: int | None, dictionary: int | None) -> str:
        """Return the v2 URL of a server for a stream from `cursor`; None is live.

        `dictionary` is the id of the zstd dictionary; None requests uncompressed frames.
        """
        parameters = [("collections", nsid) for nsid in self.collections]
        parameters += [("dids", did) for did in self.dids]
        if cursor is not None:
            parameters.append(("cursor", str(cursor)))
        if dictionary is not None:
            parameters.append(("zstdDictionary", str(dictionary)))
        query = urlencode(parameters)
        return f"{server}{V2_PATH}{'?' if query else ''}{query}"

    def protocol(self, chosen: str) -> str:
        """Return the protocol to request for `--protocol` (`chosen`): `auto`, `v1` or `v2`.

        `auto` becomes v1 where the filters do not fit into a URL, as v2 accepts filters only there.
        """
        return "v1" if chosen == "auto" and self.needs_options_message else chosen

    @property
    def needs_options_message(self) -> bool:
        """Whether the filters are sent in a message after the handshake."""
        return len(self.dids) > _MAX_DIDS_IN_URL

    @property
    def options_message(self) -> str:
        """The message that sets the filters after a handshake with `requireHello`."""
        payload = {"wantedCollections": self.collections, "wantedDids": self.dids, "maxMessageSizeBytes": 0}
        return json.dumps({"type": "options_update", "payload": payload})
