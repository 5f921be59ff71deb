"""The filter for what exists: documents that are neither redacted nor hidden.

Searches that show content or count existing records use it; counts of events (activity) do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The first has a value in each tombstone, which is what is left of a redacted document. The second is true in
# the documents of an account that is not active.
REDACTED_AT, HIDDEN = "redacted.at", "hidden"

EXISTING: Mapping[str, Any] = {
    "bool": {"must_not": [{"exists": {"field": REDACTED_AT}}, {"term": {HIDDEN: True}}]}
}
# The same for users, in the languages of Kibana and of the parameter `q` of a search.
KQL = f"not {REDACTED_AT}: * and not {HIDDEN}: true"
QUERY_STRING = f"NOT _exists_:{REDACTED_AT} AND NOT {HIDDEN}:true"
ES_QL = f"WHERE {REDACTED_AT} IS NULL AND ({HIDDEN} IS NULL OR {HIDDEN} == false)"
