"""Changes of the mappings of existing daily indices: fields that a newer version has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from elasticsearch import ApiError, AuthorizationException, BadRequestError, Elasticsearch, NotFoundError

from slurp.elastic.client import describe, error_details, missing_privilege
from slurp.elastic.days import day_of_index
from slurp.elastic.templates import asset, is_managed

log = logging.getLogger(__name__)

Json = dict[str, Any]

# The top-level fields that searches for what exists need: `slurp.documents.existing`.
_DELETION_FIELDS = ("redacted", "hidden")
# The index does not accept the change, or the user may not make it; 429 is the block of a full disk.
_REJECTED = (400, 403, 429)
# Indices named in a log line.
_MAX_NAMES = 3


def add_deletion_fields(client: Elasticsearch, index: str, *, read_only: bool = False) -> None:
    """Add `redacted` and `hidden` to the mappings of existing daily indices that lack them, of any age.

    Days of version 0.1.0 lack them, and with dynamic mapping disabled, searches cannot exclude what is hidden
    there. Nothing else of a mapping is changed, and nothing at all with `read_only`. Indices that cannot be
    changed are logged; closed ones, and those that this program did not create, are left alone.
    """
    try:
        incomplete = _without_deletion_fields(client, index)
    except AuthorizationException as error:
        log.warning("the mappings of the daily indices are not checked: %s", _reason(error))
        return
    updated: list[str] = []
    failed: dict[str, list[str]] = {}
    for name, fields in incomplete.items():
        if read_only:
            failed.setdefault("not added, because of --no-setup", []).append(name)
            continue
        try:
            client.indices.put_mapping(index=name, properties=fields)
        except NotFoundError:
            continue  # deleted in between
        except ApiError as error:
            if error.status_code not in _REJECTED:
                raise
            failed.setdefault(_reason(error), []).append(name)
        else:
            updated.append(name)
    if updated:
        log.info("added 'redacted' and 'hidden' to the mappings of %s", _names(updated))
    for reason, names in failed.items():
        log.warning(
            "the mappings of %s lack 'redacted' and 'hidden' (%s): page and dashboards cannot exclude such "
            "documents there; let an administrator run --setup-only",
            _names(names),
            reason,
        )


def _without_deletion_fields(client: Elasticsearch, index: str) -> dict[str, Json]:
    """Return the missing fields of each open daily index of this program that lacks some."""
    parts = ("_meta", *(f"properties.{name}" for name in _DELETION_FIELDS))
    found = client.indices.get_mapping(
        index=f"{index}-*", allow_no_indices=True, filter_path=[f"*.mappings.{part}" for part in parts]
    )
    properties = asset("events")["mappings"]["properties"]
    wanted = {name: properties[name] for name in _DELETION_FIELDS}
    return {
        name: missing
        for name, body in found.items()
        if day_of_index(index, name) is not None
        and is_managed(body["mappings"].get("_meta"))
        and (missing := missing_fields(wanted, body["mappings"].get("properties", {})))
    }


def _reason(error: ApiError) -> str:
    if isinstance(error, AuthorizationException) and error_details(error)[0] == "security_exception":
        return f"{missing_privilege(error)} is missing"
    return describe(error)


def _names(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(sorted(names)[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def put_mapping(client: Elasticsearch, name: str, properties: Json, meta: Json) -> bool:
    """Update the mappings of an index; return whether Elasticsearch accepted the change."""
    try:
        client.indices.put_mapping(index=name, properties=properties, meta=meta)
    except (BadRequestError, NotFoundError) as error:
        log.warning("cannot update the mappings of %s: %s", name, describe(error))
        return False
    log.info("%s: mappings updated", name)
    return True


def missing_fields(wanted: Mapping[str, Any], existing: Mapping[str, Any]) -> Json:
    """Return the part of the properties `wanted` that `existing` lacks.

    If a single field conflicts with the user's mapping, Elasticsearch rejects the whole request.
    """
    new: Json = {}
    for name, field in wanted.items():
        old = existing.get(name)
        if old is None:
            new[name] = field
        elif inner := missing_fields(field.get("properties", {}), old.get("properties", {})):
            if _accepts_properties(old):
                # Without its type, the request would change a nested object to a plain one.
                new[name] = {"type": old.get("type", "object"), "properties": inner}
        elif old.get("type") == field.get("type") and (
            inner := missing_fields(field.get("fields", {}), old.get("fields", {}))
        ):
            new[name] = {**old, "fields": inner}
    return new


def _accepts_properties(field: Mapping[str, Any]) -> bool:
    return field.get("type", "object") in ("object", "nested") and field.get("enabled", True) is not False
