"""Remove the accounts that are deleted from the examples of unknown fields."""

from __future__ import annotations

from collections.abc import Sequence

from slurp.elastic.bulk import send, update_hit
from slurp.elastic.client import Elastic
from slurp.elastic.error_classes import Item, ItemClass, classify
from slurp.elastic.pages import pages
from slurp.elastic.templates import DRIFT_INDEX
from slurp.events.frames import account_of

_PAGE = 1000
_HAS_EXAMPLE = {"exists": {"field": "example_uri"}}


def remove_examples(elastic: Elastic, dids: Sequence[str]) -> dict[str, Item]:
    """Remove the URIs of records of these accounts from the index of unknown fields; return the errors of the
    accounts of which some are left.

    Raises the exceptions of the client.
    """
    if not dids:
        return {}
    client, wanted = elastic.client, frozenset(dids)
    client.indices.refresh(index=DRIFT_INDEX, ignore_unavailable=True)
    # All of them, as a cluster may reject a search by the beginning of a keyword. They are few.
    found = pages(client, DRIFT_INDEX, [_HAS_EXAMPLE], size=_PAGE, source_includes=["example_uri"])
    hits = [
        (did, hit)
        for _, response in found
        for hit in response["hits"]["hits"]
        if (did := account_of(hit["_source"]["example_uri"])) in wanted
    ]
    if not hits:
        return {}
    items = send(client, [update_hit(hit, {"example_uri": None}) for _, hit in hits])
    return {
        did: item
        for (did, _), item in zip(hits, items, strict=True)
        if classify(item) is not ItemClass.INDEXED
    }
