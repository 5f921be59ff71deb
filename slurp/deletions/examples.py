"""Remove the accounts that are deleted from the examples of unknown fields."""

from __future__ import annotations

from collections.abc import Sequence

from slurp.deletions.versions import NotWritten
from slurp.elastic.bulk import send, update_hit
from slurp.elastic.client import Elastic
from slurp.elastic.error_classes import ItemClass, classify
from slurp.elastic.templates import DRIFT_INDEX

_PAGE = 1000


def remove_examples(elastic: Elastic, dids: Sequence[str]) -> None:
    """Remove the URIs of records of these accounts from the index of unknown fields.

    Raises the exceptions of the client, and NotWritten if some are left.
    """
    client = elastic.client
    client.indices.refresh(index=DRIFT_INDEX, ignore_unavailable=True)
    found = client.search(
        index=DRIFT_INDEX,
        query={"bool": {"should": [{"prefix": {"example_uri": f"at://{did}/"}} for did in dids]}},
        size=_PAGE,
        source=False,
        seq_no_primary_term=True,
        ignore_unavailable=True,
    )
    hits = found["hits"]["hits"]
    if not hits:
        return
    items = send(client, [update_hit(hit, {"example_uri": None}) for hit in hits])
    if len(hits) == _PAGE or any(classify(item) is not ItemClass.INDEXED for item in items):
        raise NotWritten("some examples of unknown fields name deleted accounts")
