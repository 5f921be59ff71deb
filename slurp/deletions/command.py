"""The work of `python -m slurp.deletions`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slurp.deletions.accounts import Accounts
from slurp.deletions.applied import Applied
from slurp.deletions.stored import StoredDeletions
from slurp.deletions.tombstones import SOURCE_FIELDS, tombstone
from slurp.deletions.versions import RatePause, Versions, overwrite, utc_now
from slurp.errors import Exit
from slurp.pipeline.inactive_accounts import InactiveAccounts
from slurp.progress_bar import ProgressBar
from slurp.tool import Tool

log = logging.getLogger(__name__)

Json = dict[str, Any]

_REQUEST = "request"
# Found documents that are listed; the rest is counted.
_LISTED = 20


@dataclass(frozen=True)
class Request:
    """What to do: exactly one of the first four. Without `yes` nothing is changed."""

    did: str | None = None
    uri: str | None = None
    verify: bool = False
    confirm: bool = False
    yes: bool = False


class Command:
    """One run of the command. `run` returns the exit code."""

    def __init__(self, tool: Tool) -> None:
        self._elastic = tool.elastic
        self._config = tool.config
        self._screen = tool.screen
        pause = RatePause(self._config.deletions_rate, threading.Event())
        self._versions = Versions(self._elastic, self._config.index, pause, tool.check_stop)
        self._accounts = Accounts(self._elastic, self._config, self._versions, InactiveAccounts())

    def run(self, request: Request) -> Exit:
        """Carry out a request, or report what it would do; return the exit code.

        Raises the exceptions of the client, and Stopped.
        """
        self._versions.refresh()
        if request.confirm:
            return self._confirm(yes=request.yes)
        if request.verify:
            return self._verify(yes=request.yes)
        return self._remove(request)

    def _remove(self, request: Request) -> Exit:
        """Redact all versions of one record, or all documents of one account."""
        if request.uri is not None:
            query: Json = {"term": {"uri": request.uri}}
        else:
            query = {"term": {"did": request.did}}
        query = {"bool": {"filter": [query], "must_not": [{"term": {"redacted.reason": _REQUEST}}]}}
        total = self._versions.count(query)
        what = request.uri or request.did
        if not total:
            log.info("%s: no documents with content", what)
            return Exit.DONE
        if not request.yes:
            log.info("%s: %s document(s) would lose their content; add --yes to do it", what, f"{total:,}")
            return Exit.DONE
        failed = 0
        bar = ProgressBar(self._screen, "redacting", total)
        try:
            for hits in self._versions.search(query, SOURCE_FIELDS):
                now, anonymous = utc_now(), request.uri is None
                actions = [
                    overwrite(hit, tombstone(hit["_source"], _REQUEST, now, anonymous=anonymous))
                    for hit in hits
                ]
                failed += sum(error is not None for error in self._versions.write(actions))
                bar.advance(len(hits))
        finally:
            bar.end()
        if request.did is not None:
            failed += len(self._versions.derived.remove_accounts([request.did]))
        elif request.uri is not None:
            self._versions.derived.remove_records([request.uri])
        log.info("%s: %s document(s) have lost their content", what, f"{total - failed:,}")
        if failed:
            log.error("%s document(s) could not be written; run the command again", f"{failed:,}")
            return Exit.FAILED
        return Exit.DONE

    def _verify(self, *, yes: bool) -> Exit:
        """Compare all versions with the stored deletions; with `yes` apply these."""
        stored = StoredDeletions(self._versions, self._accounts)
        bar = ProgressBar(self._screen, "applying" if yes else "verifying", stored.count())
        closed = self._versions.days("closed")
        for name in closed:
            log.warning("%s is closed and is not verified", name)
        try:
            found = self._repair(stored, bar.advance) if yes else self._report(stored, bar.advance)
        finally:
            bar.end()
        if yes:
            if found:
                return Exit.FAILED
            if not closed:
                Applied(self._elastic, self._config.index).record()
            return Exit.DONE
        if found:
            log.error(
                "%s document(s) are not as the stored deletions require; apply these with --verify --yes",
                f"{found:,}",
            )
            return Exit.FAILED
        log.info("all documents are as the stored deletions require")
        return Exit.DONE

    def _report(self, stored: StoredDeletions, advance: Callable[[int], None]) -> int:
        found = 0
        for hit in stored.find(advance):
            found += 1
            if found <= _LISTED:
                log.warning("%s/%s: %s", hit["_index"], hit["_id"], hit["_source"].get("uri", "no record"))
            elif found == _LISTED + 1:
                log.warning("…")
        return found

    def _repair(self, stored: StoredDeletions, advance: Callable[[int], None]) -> int:
        """Return the number of records and accounts of which a document could not be written."""
        result = stored.apply(advance)
        log.info(
            "%s version(s) and %s document(s) of deleted accounts have lost their content",
            f"{sum(result.redacted.values()):,}",
            f"{self._accounts.redacted:,}",
        )
        for name, item in list(result.failed.items())[:_LISTED]:
            log.error("%s: %s", name, item)
        return len(result.failed)

    def _confirm(self, *, yes: bool) -> Exit:
        """Let deletions of accounts be carried out that --deletions-brake holds."""
        held = self._accounts.held
        if not held:
            log.info("no deleted accounts wait for confirmation")
        elif yes:
            self._accounts.brake.confirm()
            log.info("%s deleted account(s): the worker removes their content when it is due", f"{held:,}")
        else:
            log.info("%s deleted account(s) wait; add --yes to have their content removed", f"{held:,}")
        return Exit.DONE
