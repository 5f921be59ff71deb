"""What we ask of a Jetstream server: filters and a place to start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from slurp.config import Config

# Servers read a URL of some hundred kilobytes, proxies before them do not: longer filters travel in
# a message after the handshake.
_MAX_DIDS_IN_URL = 100
# Characters of a filter in a message.
_SHOWN = 200

V1_PATH = "/subscribe"
V2_PATH = "/xrpc/network.bsky.jetstream.subscribeEvents"


@dataclass(frozen=True, slots=True)
class Subscription:
    """Filters, and who indexes where: together they name a checkpoint."""

    index: str
    collections: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()
    worker: str = ""

    @classmethod
    def of(cls, config: Config) -> Subscription:
        return cls(config.index, config.collections, config.dids, config.worker_name)

    @property
    def filters(self) -> tuple[str, ...]:
        """Return the options that filter the stream, as they are spelled; empty when it is whole."""
        collections = f"--collections {','.join(self.collections)[:_SHOWN]}" if self.collections else ""
        return tuple(option for option in (collections, "--dids" if self.dids else "") if option)

    @property
    def key(self) -> str:
        """Equal for equal filters, index and worker, in whatever order they were given."""
        canonical = json.dumps([self.index, sorted(self.collections), sorted(self.dids), self.worker])
        return blake2b(canonical.encode(), digest_size=12).hexdigest()

    def document_id(self, host: str) -> str:
        """The `_id` of this subscription's checkpoint at `host`."""
        return f"checkpoint:{self.index}:{self.worker or '-'}:{host[:200]}:{self.key}"

    def describe(self) -> Mapping[str, Any]:
        """The readable part of a checkpoint document."""
        return {
            "index": self.index,
            "worker": self.worker,
            "collections": self.collections,
            "dids": len(self.dids),
        }

    def url(self, server: str, cursor: int | None) -> str:
        """`/subscribe` of a server, from `cursor` or live."""
        parameters: list[tuple[str, str]] = []
        if self.needs_hello:
            parameters.append(("requireHello", "true"))
        else:
            parameters += [("wantedCollections", nsid) for nsid in self.collections]
            parameters += [("wantedDids", did) for did in self.dids]
        if cursor is not None:
            parameters.append(("cursor", str(cursor)))
        query = urlencode(parameters)
        return f"{server}{V1_PATH}{'?' if query else ''}{query}"

    def v2_url(self, server: str, cursor: int | None, dictionary: int | None) -> str:
        """`subscribeEvents` of a server, from `cursor` or live, compressed with `dictionary` or plain."""
        parameters = [("collections", nsid) for nsid in self.collections]
        parameters += [("dids", did) for did in self.dids]
        if cursor is not None:
            parameters.append(("cursor", str(cursor)))
        if dictionary is not None:
            parameters.append(("zstdDictionary", str(dictionary)))
        query = urlencode(parameters)
        return f"{server}{V2_PATH}{'?' if query else ''}{query}"

    def protocol(self, chosen: str) -> str:
        """The wire to ask a server for: `--protocol`, but `auto` is v1 where filters do not fit into a URL,
        as the v2 wire takes none elsewhere."""
        return "v1" if chosen == "auto" and self.needs_hello else chosen

    @property
    def needs_hello(self) -> bool:
        return len(self.dids) > _MAX_DIDS_IN_URL

    @property
    def hello(self) -> str:
        """The message that sets the filters after a handshake with `requireHello`."""
        payload = {"wantedCollections": self.collections, "wantedDids": self.dids, "maxMessageSizeBytes": 0}
        return json.dumps({"type": "options_update", "payload": payload})
