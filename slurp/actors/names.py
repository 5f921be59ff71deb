"""Names of accounts for trends, the page and searches: stored ones, and those that an AppView knows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from slurp.actors.appview import AppView, Post, Profile, Unavailable
from slurp.deletions.account_states import AccountStates
from slurp.elastic.actor_documents import STATUS, ActorDocuments
from slurp.elastic.client import Elastic
from slurp.elastic.outage_log import OutageLog
from slurp.events.times import parse_time

log = logging.getLogger(__name__)

Json = dict[str, Any]

# How long a name is used before it is looked up again; and for accounts that the AppView did not know.
_FRESH, _FRESH_WITHOUT = timedelta(days=7), timedelta(hours=6)
# Posts that the AppView did not know, kept in memory.
_MAX_UNKNOWN_POSTS = 20_000
_LOG_EVERY = 600.0


class Name(NamedTuple):
    """How an account is named; None for what is not known."""

    handle: str | None = None
    display_name: str | None = None

    @property
    def text(self) -> str:
        """The name to show: `Alice @alice.example`; '' if nothing is known."""
        return " ".join(filter(None, (self.display_name, self.handle and f"@{self.handle}")))


class Actors:
    """The names of accounts. One thread uses it. All methods raise the exceptions of the client.

    What the AppView cannot be asked for now is left out, and asked for again later.
    """

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        appview: AppView | None,
        clock: Callable[[], float] = time.time,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """Without an AppView only stored names are known. `heartbeat` is called after each call of it."""
        self._heartbeat = heartbeat
        self._documents = ActorDocuments(elastic)
        self._states = AccountStates(elastic, index)
        self._appview = appview
        self._clock = clock
        self._unknown_posts: dict[str, None] = {}
        self._outage_log = OutageLog(
            _LOG_EVERY,
            failing_message="names cannot be looked up: {}; trying again",
            recovered_message="names are looked up again",
        )

    def names(self, dids: Iterable[str]) -> dict[str, Name]:
        """Return the names of those of these accounts that have one; look up those that are not known."""
        wanted = set(dids)
        stored = self._documents.get(wanted)
        outdated = {did: stored.get(did, {}) for did in wanted if self._is_outdated(stored.get(did))}
        found = stored | self._look_up(outdated)
        return {did: Name(_text(one, "handle"), _text(one, "display_name")) for did, one in found.items()}

    def posts(self, uris: Iterable[str]) -> dict[str, Post]:
        """Return those of these posts that the AppView knows."""
        wanted = set(uris) - self._unknown_posts.keys()
        found: dict[str, Post] = {}
        if self._appview is None or not wanted:
            return found
        try:
            for posts in self._appview.posts(wanted):
                self._heartbeat()
                found |= {uri: post for uri, post in posts.items() if post is not None}
                self._unknown_posts |= dict.fromkeys(uri for uri, post in posts.items() if post is None)
            self._outage_log.recovered()
        except Unavailable as error:
            self._outage_log.failing(str(error))
        while len(self._unknown_posts) > _MAX_UNKNOWN_POSTS:
            del self._unknown_posts[next(iter(self._unknown_posts))]
        return found

    def refresh(self, dids: Iterable[str]) -> None:
        """Look up those of these accounts that have a document again: they have changed."""
        self._look_up(self._documents.get(dids))

    def set_statuses(self, statuses: Mapping[str, tuple[int, str]]) -> None:
        """Record the status that account events say, with their times (Unix microseconds), of accounts of
        which the names are known, unless a later one is recorded."""
        self._documents.set_statuses(statuses)

    def _look_up(self, stored: Mapping[str, Json]) -> dict[str, Json]:
        """Return the new documents of accounts, which are stored; `stored` has those until now, or {}."""
        found: dict[str, Json] = {}
        if self._appview is None or not stored:
            return found
        try:
            for profiles in self._appview.profiles(stored):
                self._heartbeat()
                found |= {did: self._document(did, one) for did, one in profiles.items()}
            self._outage_log.recovered()
        except Unavailable as error:
            self._outage_log.failing(str(error))
        # What account events said; the AppView does not know inactive accounts.
        for did, document in found.items():
            document |= {name: stored[did][name] for name in STATUS if name in stored[did]}
        self._documents.put(list(found.values()))
        # An account may have been deleted or hidden meanwhile: its state was stored first.
        states = self._states.get(found)
        deleted = {did for did, state in states.items() if state.times.deleted_until_us}
        self._documents.remove(deleted)
        self._documents.hide(
            (did for did, state in states.items() if state.times.hidden_until_us and did not in deleted),
            hidden=True,
        )
        return {did: document for did, document in found.items() if did not in deleted}

    def _document(self, did: str, profile: Profile | None) -> Json:
        """Return the document of an account; without a name if the AppView does not know it."""
        known = Profile(did) if profile is None else profile
        fields = {
            "handle": known.handle,
            "display_name": known.display_name,
            "description": known.description,
            "avatar_url": known.avatar_url,
            "created_at": known.created_at,
            "followers": known.followers,
            "labels": list(known.labels),
        }
        resolved_at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        document = {name: value for name, value in fields.items() if value not in (None, [])}
        return {"did": did, **document, "is_known": profile is not None, "resolved_at": resolved_at}

    def _is_outdated(self, document: Mapping[str, Any] | None) -> bool:
        if document is None:
            return True
        # Another program may have changed the document.
        resolved_us = parse_time(str(document.get("resolved_at"))) or 0
        age = timedelta(seconds=self._clock() - resolved_us / 1e6)
        return age > (_FRESH if document.get("is_known") is True else _FRESH_WITHOUT)


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None
