"""Daily indices: one index for each day, named by the day of the event and created before its first
document."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from elasticsearch import AuthorizationException, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic, describe
from slurp.elastic.days import SECONDS_PER_DAY, Clocks
from slurp.elastic.disk_state import DiskState
from slurp.elastic.setup import create_index, has_managed_template
from slurp.elastic.templates import MINIMAL_DAY_MAPPINGS, effective_template, is_from_template
from slurp.errors import Fatal
from slurp.events.times import day_of
from slurp.replay_command import ReplayCommand

log = logging.getLogger(__name__)

# Seconds before midnight at which the index of the next day is created.
_CREATE_AHEAD = 3600
# Seconds until an index that was found correct is checked again, since it may be deleted at any time.
_CHECK_INTERVAL = 60.0
# Seconds between two heartbeats of a thread that waits for the check of another thread.
_HEARTBEAT_INTERVAL = 1.0


class DailyIndices:
    """The daily indices of one `--index`: their names, creation and expiry. Thread-safe."""

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        retention_days: int | None,
        put_templates: Callable[[Elasticsearch], None],
        clocks: Clocks | None = None,
        replay_command: ReplayCommand | None = None,
    ) -> None:
        """`retention_days` None keeps all days. `put_templates` is called when the index template is
        missing."""
        self.disk_state = DiskState(elastic, index)
        self._elastic = elastic
        self.index = index
        self._retention_days = retention_days
        self._put_templates = put_templates
        self._clocks = clocks or Clocks()
        self._replay_command = replay_command or ReplayCommand()
        self._lock = threading.Lock()
        # When the index of each day was last found correct, by the monotonic clock.
        self._checked_at: dict[int, float] = {}
        # The number of failed checks, and the day and error of the last check if it failed.
        self._failure_count = 0
        self._last_failure: tuple[int, Exception] | None = None
        # The UUID tells an index from a later one of the same name.
        self._uuids: dict[int, str] = {}

    def name(self, day: int) -> str:
        """Return the name of the index of a day."""
        return f"{self.index}-{day_of(day)}"

    def is_expired(self, day: int, event_us: int | None = None) -> bool:
        """Return whether a day is past retention or was deleted for --max-disk; a replay must not restore it.

        While no lower bound of the time is known, the time is the earlier of the clock and `event_us`, the
        time of an event of the same batch in Unix microseconds.
        """
        if self.is_deleted_for_disk(day):
            return True
        if self._retention_days is None:
            return False
        now = self._clocks.earliest()
        if now is None:
            now = self._clocks.now() if event_us is None else min(self._clocks.now(), event_us / 1e6)
        return day < int(now) // SECONDS_PER_DAY - self._retention_days

    def is_deleted_for_disk(self, day: int) -> bool:
        """Return whether `day`, or a later day, was deleted for --max-disk."""
        return day < self.disk_state.oldest_day

    def ensure(self, day: int, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Create the index of a day if it does not exist, and check once a minute that it still exists.

        An index that is created without the index template would accept any field permanently, so no document
        is written before this check. `heartbeat` is called before each request, and each second while another
        thread makes the requests. If the check of that thread fails, its error is raised here as well: if
        each thread repeated the check, each would wait for an unresponsive cluster.

        Raises the exceptions of the client, and Fatal for an index that this program did not create.
        """
        if self._is_checked(day):
            return
        if day in self._checked_at:
            # During a repeated check by another thread, the result of the last check is used.
            if not self._lock.acquire(blocking=False):
                return
            failure_count = self._failure_count
        else:
            failure_count = self._failure_count
            while not self._lock.acquire(timeout=_HEARTBEAT_INTERVAL):
                heartbeat()
        try:
            if self._is_checked(day):
                return
            failure = self._last_failure
            if self._failure_count != failure_count and failure is not None and failure[0] == day:
                raise failure[1]
            try:
                self._check(day, heartbeat)
            except Exception as error:
                self._failure_count, self._last_failure = self._failure_count + 1, (day, error)
                raise
            self._checked_at[day], self._last_failure = self._clocks.monotonic(), None
        finally:
            self._lock.release()

    def _is_checked(self, day: int) -> bool:
        checked_at = self._checked_at.get(day)
        return checked_at is not None and self._clocks.monotonic() - checked_at < _CHECK_INTERVAL

    def _check(self, day: int, heartbeat: Callable[[], None]) -> None:
        name, client = self.name(day), self._elastic.client.options(request_timeout=30)
        heartbeat()
        uuid, meta = _uuid_and_meta(client, name)
        heartbeat()
        self._restore_template(client, is_required=uuid is None)
        if uuid is None:
            heartbeat()
            is_created = create_index(client, name, mappings=MINIMAL_DAY_MAPPINGS)
            heartbeat()
            # Also if it was not created here: then another worker has created it.
            uuid, meta = _uuid_and_meta(client, name)
            if uuid is None:
                return  # deleted in between; the next write fails and causes another check
            if is_created:
                heartbeat()
                self._check_new_index(client, name, meta)
                log.info("created index %s", name)
        self._warn_if_replaced(day, uuid)
        if not is_from_template(meta):
            raise Fatal(
                f"index {name} exists and was not created by this program, or not from its index template: "
                "delete it or choose another --index"
            )

    def _warn_if_replaced(self, day: int, uuid: str) -> None:
        """Log a warning if the index is not the one that this worker has written to before."""
        if self._uuids.setdefault(day, uuid) != uuid:
            log.warning(
                "index %s was deleted while the worker was running: its documents are lost, and it starts "
                "empty. Events that servers still have can be read again: %s",
                self.name(day),
                self._replay_command.advice(day * SECONDS_PER_DAY * 1_000_000),
            )
            self._uuids[day] = uuid

    def _restore_template(self, client: Elasticsearch, is_required: bool) -> None:
        """Put the index template if it is missing. It is required only to create an index."""
        if has_managed_template(client, self.index):
            return
        log.warning("index template %r is missing, restoring it", self.index)
        try:
            self._put_templates(client)
            if not has_managed_template(client, self.index):
                raise Fatal(
                    f"index template {self.index!r} is missing, and the component templates, which are of a "
                    "newer version, are not changed: run that version with --setup-only, or delete "
                    f"{self.index}@settings, {self.index}@mappings and {self.index}@lexicons"
                )
        except (Fatal, AuthorizationException) as error:
            if is_required:
                raise
            log.warning("cannot create new daily indices: %s", describe(error))

    def _check_new_index(self, client: Elasticsearch, name: str, meta: Any) -> None:
        """Delete a new index that was created from another template. Raises Fatal for such an index."""
        if is_from_template(meta):
            return
        try:
            client.indices.delete(index=name)
        except AuthorizationException:
            log.warning(
                "index %s has wrong mappings, and the privilege to delete it is missing: delete it", name
            )
        other = effective_template(client, name)
        raise Fatal(
            f"index {name} was created without the index template {self.index!r}: template {other!r} has a "
            "higher priority, so narrow its index_patterns or lower its priority"
        )

    def ensure_tomorrow(self) -> None:
        """Create the index of the next day in the last hour of a day, so that it exists at midnight."""
        now = int(self._clocks.now())
        if SECONDS_PER_DAY - now % SECONDS_PER_DAY <= _CREATE_AHEAD:
            self.ensure(now // SECONDS_PER_DAY + 1)

    def forget(self, day: int) -> None:
        """Check the index of a day again before the next write, since a write found that it is missing."""
        # Without the lock, which another thread may hold while it waits for an unresponsive cluster.
        self._checked_at.pop(day, None)


def _uuid_and_meta(client: Elasticsearch, name: str) -> tuple[str | None, Any]:
    """Return the UUID of an index and the `_meta` of its mappings; (None, None) if it does not exist."""
    try:
        response = client.indices.get(index=name, filter_path="*.settings.index.uuid,*.mappings._meta")
    except NotFoundError:
        return None, None
    # The key is another name if the index was shrunk or mounted and `name` is an alias.
    found = next(iter(response.values()), None)
    if found is None:
        return None, None
    return found["settings"]["index"]["uuid"], found.get("mappings", {}).get("_meta")
