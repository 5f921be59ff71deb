"""Validation of every answer, in one place: is it Elasticsearch's, and of the shape that its API documents?

What a proxy, a gateway, a captive portal or another program says is no answer, whatever its status: nothing
is concluded from it, and the request is sent again later. An answer is Elasticsearch's when it carries the
header `X-elastic-product`, or is a JSON error of its shape, as the 401 and 403 of its security layer lack the
header (seen on 8.17).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from elastic_transport import TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from slurp.logs import cut

_TOO_LARGE = 413
# Characters of a foreign answer that are shown, of one line.
_SHOWN = 300


class UnexpectedAnswer(TransportError):
    """Something answered that says nothing about the request.

    `foreign_status` is the HTTP status of an answer that is not Elasticsearch's, else None.
    """

    def __init__(
        self, message: str, *, foreign_status: int | None = None, is_opensearch: bool = False
    ) -> None:
        super().__init__(message)
        self.foreign_status = foreign_status
        self.is_opensearch = is_opensearch


class CheckedElasticsearch(Elasticsearch):
    """The client, whose every answer is checked before anybody reads it.

    Raises ApiError for what Elasticsearch rejects, and UnexpectedAnswer for an answer that is not its own or
    not of the documented shape.
    """

    def perform_request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any | None = None,
        endpoint_id: str | None = None,
        path_parts: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            answer = super().perform_request(
                method,
                path,
                params=params,
                headers=headers,
                body=body,
                endpoint_id=endpoint_id,
                path_parts=path_parts,
            )
        except ApiError as error:
            # A request that is too large is rejected by the HTTP layer, here or in a proxy, without a body.
            if error.status_code == _TOO_LARGE or _is_error_of_elasticsearch(error):
                raise
            raise _foreign(error.status_code, error.meta.headers, error.body) from None
        except UnsupportedProductError as error:
            raise _foreign(error.meta.status, error.meta.headers, error.body) from None
        except RecursionError:
            raise UnexpectedAnswer("an answer of JSON that is nested too deeply") from None
        if not _has_header(answer.meta.headers):
            raise _foreign(answer.meta.status, answer.meta.headers, answer.body)
        if method != "HEAD":
            expected = _SHAPES.get(endpoint_id or "")
            problem = "" if expected is None else _mismatch(answer.body, expected)
            if endpoint_id == "search" and not problem and isinstance(body, dict) and "aggs" in body:
                # Of no shard there are none.
                problem = answer["_shards"]["total"] and _mismatch(answer.body, {"aggregations": {}})
            if problem:
                raise UnexpectedAnswer(f"an answer of unknown shape to {method} {path}: {problem}")
        return answer


def _has_header(headers: Mapping[str, str]) -> bool:
    return headers.get("x-elastic-product") == "Elasticsearch"


def _is_error_of_elasticsearch(error: ApiError) -> bool:
    if _has_header(error.meta.headers):
        return True
    body = error.body
    cause = body.get("error") if isinstance(body, dict) else None
    return (
        isinstance(cause, dict)
        and isinstance(cause.get("type"), str)
        and "reason" in cause
        and body.get("status", error.status_code) == error.status_code
    )


def _foreign(status: int, headers: Mapping[str, str], body: object) -> UnexpectedAnswer:
    """Describe an answer of something else by its status, its type and the beginning of its text."""
    kind = headers.get("content-type", "").partition(";")[0].strip() or "no content type"
    text = re.sub(r"<(style|script)\b.*?</\1\s*>|<[^>]*>|\s+", " ", str(body or ""), flags=re.S | re.I)
    shown = cut(" ".join(text.split()), _SHOWN)
    return UnexpectedAnswer(
        f"HTTP {status} from something that is not Elasticsearch ({kind})" + (f": {shown}" if shown else ""),
        foreign_status=status,
        is_opensearch=_is_opensearch(headers, body),
    )


def _is_opensearch(headers: Mapping[str, str], body: object) -> bool:
    """Whether OpenSearch has answered: the health of a cluster, or the rejection of credentials."""
    if "opensearch security" in headers.get("www-authenticate", "").lower():
        return True
    return (
        isinstance(body, Mapping)
        and "cluster_name" in body
        and ("discovered_master" in body or "discovered_cluster_manager" in body)
    )


class _Each:
    """Every item of a list, `least` of them at least.

    An entry that equals `usual` is not looked into, which is many times as fast.
    """

    kind: Any = list

    def __init__(self, of: Any, least: int = 0, usual: Any = ()) -> None:
        self.of = of
        self.least = least
        # By default a tuple, which JSON has none of.
        self.usual = usual


class _Values(_Each):
    """Every value of an object."""

    kind: Any = dict


_SHARDS = {"total": int, "failed": int}
_SEARCH = {"timed_out": bool, "_shards": _SHARDS, "hits": {"hits": _Each({"_id": str})}}
_ACKNOWLEDGED = {"acknowledged": bool}
_ITEM = _Values({"status": int}, least=1)

# By the name of the API: what we read of its answers. A type is that of the value, an object names fields
# that must be there.
_SHAPES: Mapping[str, Any] = {
    "bulk": {"items": _Each(_ITEM, least=1, usual={"create": {"result": "created", "status": 201}})},
    "cluster.get_component_template": {"component_templates": _Each({"name": str, "component_template": {}})},
    "cluster.health": {"status": str},
    "cluster.put_component_template": _ACKNOWLEDGED,
    "count": {"count": int},
    "get": {"_source": {}, "_seq_no": int, "_primary_term": int},
    "ilm.get_lifecycle": _Values({"policy": {}}),
    "ilm.put_lifecycle": _ACKNOWLEDGED,
    "index": {"result": str, "_seq_no": int, "_primary_term": int},
    "indices.create": _ACKNOWLEDGED,
    "indices.delete": _ACKNOWLEDGED,
    "indices.get": _Values({"settings": {"index": {"uuid": str}}}, least=1),
    "indices.get_index_template": {"index_templates": _Each({"name": str, "index_template": {}})},
    "indices.get_mapping": _Values({"mappings": {}}),
    "indices.get_settings": _Values({"settings": {"index": {}}}),
    "indices.put_index_template": _ACKNOWLEDGED,
    "indices.put_mapping": _ACKNOWLEDGED,
    "indices.put_settings": _ACKNOWLEDGED,
    "indices.refresh": {"_shards": _SHARDS},
    # Empty where no index matches.
    "indices.stats": _Values(_Values({"total": _Values({"size_in_bytes": int})})),
    "ingest.get_pipeline": _Values({}),
    "ingest.put_pipeline": _ACKNOWLEDGED,
    "mget": {"docs": _Each({"_id": str}, least=1)},
    "nodes.info": {"nodes": _Values({"version": str}, least=1)},
    "scroll": {"hits": {"hits": _Each({"_id": str})}},
    "search": _SEARCH,
    "security.has_privileges": {
        "has_all_requested": bool,
        "cluster": _Values(bool),
        "index": _Values(_Values(bool)),
    },
}


def _mismatch(value: Any, expected: Any, where: str = "the answer") -> str:
    """Return how a value differs from what is expected, '' when it does not."""
    if isinstance(expected, _Each):
        if not isinstance(value, expected.kind):
            return f"{where} is {_named(value)}"
        if len(value) < expected.least:
            return f"{where} is empty"
        entries = value.values() if isinstance(value, dict) else value
        unusual = [entry for entry in entries if entry != expected.usual]
        problems = (_mismatch(entry, expected.of, f"an entry of {where}") for entry in unusual)
        return next((problem for problem in problems if problem), "")
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            return f"{where} is {_named(value)}"
        for name, of in expected.items():
            if name not in value:
                return f"{where} has no {name!r}"
            if problem := _mismatch(value[name], of, repr(name)):
                return problem
        return ""
    # A bool is an int to Python, and not to JSON.
    return "" if type(value) is expected else f"{where} is {_named(value)}"


def _named(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
