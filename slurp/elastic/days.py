"""One index a day: named by the event, created before its first document."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from elasticsearch import Elasticsearch

from slurp.documents.identity import day_of
from slurp.elastic.client import Elastic
from slurp.elastic.setup import create_index, has_our_template
from slurp.elastic.templates import is_ours
from slurp.errors import Fatal

log = logging.getLogger(__name__)

_DAY = 86_400
_AHEAD = 3600


class Days:
    """Names, creates and expires day indices. Days count from 1970-01-01, UTC."""

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        retention_days: int | None,
        put_templates: Callable[[Elasticsearch], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._elastic = elastic
        self._index = index
        self._retention = retention_days
        self._put_templates = put_templates
        self._clock = clock
        self._lock = threading.Lock()
        self._ready: set[int] = set()

    def name(self, day: int) -> str:
        return f"{self._index}-{day_of(day)}"

    def is_expired(self, day: int) -> bool:
        """A replay must not bring back a day that retention has taken."""
        return self._retention is not None and day < int(self._clock()) // _DAY - self._retention

    def ensure(self, day: int) -> None:
        """Create the index of `day` unless that is done. An index born without our template would
        take any field for ever, so the template is looked at first.

        Raises what the client raises, and Fatal for an index that is not ours.
        """
        if day in self._ready:
            return
        with self._lock:
            if day in self._ready:
                return
            client = self._elastic.client.options(request_timeout=30)
            if not has_our_template(client, self._index):
                log.warning("index template %r is gone, putting it again", self._index)
                self._put_templates(client)
            name = self.name(day)
            if create_index(client, name):
                log.info("created index %s", name)
            else:
                mapping = client.indices.get_mapping(index=name)[name]["mappings"]
                if not is_ours(mapping.get("_meta")):
                    raise Fatal(
                        f"index {name} exists and was not made by us: delete it or choose another --index"
                    )
            self._ready.add(day)

    def ensure_tomorrow(self) -> None:
        """Create tomorrow's index in the last hour of today: at midnight everybody is in a hurry."""
        now = int(self._clock())
        if _DAY - now % _DAY <= _AHEAD:
            self.ensure(now // _DAY + 1)

    def forget(self, day: int) -> None:
        """The index of `day` is missing after all: look again before the next write."""
        with self._lock:
            self._ready.discard(day)
