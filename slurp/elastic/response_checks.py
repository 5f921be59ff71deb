"""Validation of every response: does it come from Elasticsearch, and has it the documented shape?

A response from a proxy, a gateway, a captive portal or another program counts as no response, whatever its
status: nothing is concluded from it, and the request is sent again later. A response comes from Elasticsearch
if it has the header `X-elastic-product` or is a JSON error of the documented shape; the 401 and 403 responses
of its security layer lack the header (seen on 8.17).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from elastic_transport import TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from slurp.logs import cut

_FIRST_ERROR = 400
_TOO_LARGE = 413
# Characters of the text of a foreign response in an error message.
_MAX_TEXT = 300


class UnexpectedResponse(TransportError):
    """A response that does not come from Elasticsearch or does not have the documented shape.

    `foreign_status` is the HTTP status of a response that does not come from Elasticsearch, else None.
    """

    def __init__(
        self, message: str, *, foreign_status: int | None = None, is_opensearch: bool = False
    ) -> None:
        super().__init__(message)
        self.foreign_status = foreign_status
        self.is_opensearch = is_opensearch


class CheckedElasticsearch(Elasticsearch):
    """A client that checks every response before it returns it.

    Raises ApiError for requests that Elasticsearch rejects, and UnexpectedResponse for a response that does
    not come from Elasticsearch or does not have the documented shape.
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
            response = super().perform_request(
                method,
                path,
                params=params,
                headers=headers,
                body=body,
                endpoint_id=endpoint_id,
                path_parts=path_parts,
            )
        except ApiError as error:
            # Too large a request is rejected by an HTTP layer, of Elasticsearch or of a proxy, without a
            # body.
            if error.status_code == _TOO_LARGE or _is_elasticsearch_error(error):
                raise
            raise _foreign_response(error.status_code, error.meta.headers, error.body) from None
        except UnsupportedProductError as error:
            raise _foreign_response(error.meta.status, error.meta.headers, error.body) from None
        except RecursionError:
            raise UnexpectedResponse("a JSON response that is nested too deeply") from None
        if not _has_product_header(response.meta.headers):
            raise _foreign_response(response.meta.status, response.meta.headers, response.body)
        # A status that the caller ignores: the response is an error.
        if method != "HEAD" and response.meta.status < _FIRST_ERROR:
            expected = _SHAPES.get(endpoint_id or "")
            problem = "" if expected is None else _mismatch(response.body, expected)
            if endpoint_id == "search" and not problem and isinstance(body, dict):
                asked: dict[str, Any] = {}
                # A search of no shard returns no aggregations.
                if "aggs" in body and response["_shards"]["total"]:
                    asked["aggregations"] = {}
                if "pit" in body:
                    asked["pit_id"] = str
                problem = _mismatch(response.body, asked)
            if problem:
                raise UnexpectedResponse(f"a response of unknown shape to {method} {path}: {problem}")
        return response


def _has_product_header(headers: Mapping[str, str]) -> bool:
    return headers.get("x-elastic-product") == "Elasticsearch"


def _is_elasticsearch_error(error: ApiError) -> bool:
    if _has_product_header(error.meta.headers):
        return True
    body = error.body
    details = body.get("error") if isinstance(body, dict) else None
    return (
        isinstance(details, dict)
        and isinstance(details.get("type"), str)
        and "reason" in details
        and body.get("status", error.status_code) == error.status_code
    )


def _foreign_response(status: int, headers: Mapping[str, str], body: object) -> UnexpectedResponse:
    """Return an error with the status, the content type and the beginning of the text of a foreign
    response."""
    content_type = headers.get("content-type", "").partition(";")[0].strip() or "no content type"
    text = re.sub(r"<(style|script)\b.*?</\1\s*>|<[^>]*>|\s+", " ", str(body or ""), flags=re.S | re.I)
    shown = cut(" ".join(text.split()), _MAX_TEXT)
    return UnexpectedResponse(
        f"HTTP {status} from a server that is not Elasticsearch ({content_type})"
        + (f": {shown}" if shown else ""),
        foreign_status=status,
        is_opensearch=_is_opensearch(headers, body),
    )


def _is_opensearch(headers: Mapping[str, str], body: object) -> bool:
    """Return whether OpenSearch sent the response: cluster health, or a rejection of credentials."""
    if "opensearch security" in headers.get("www-authenticate", "").lower():
        return True
    return (
        isinstance(body, Mapping)
        and "cluster_name" in body
        and ("discovered_master" in body or "discovered_cluster_manager" in body)
    )


class _Items:
    """The expected shape of a list: at least `least` items, each of the shape `item`.

    An item equal to `usual` is not checked further, which is many times as fast.
    """

    container: Any = list

    def __init__(self, item: Any, least: int = 0, usual: Any = ()) -> None:
        self.item = item
        self.least = least
        # The default is a tuple, which no JSON value equals.
        self.usual = usual


class _Values(_Items):
    """The expected shape of an object with arbitrary names: that of its values."""

    container: Any = dict


class _Optional(dict[str, Any]):
    """The expected shape of an object whose fields may be missing."""


_SHARDS = {"total": int, "failed": int}
_SEARCH = {"timed_out": bool, "_shards": _SHARDS, "hits": {"hits": _Items({"_id": str})}}
# The statistics that were requested.
_STATS = _Optional(
    docs={"count": int, "deleted": int},
    store={"size_in_bytes": int},
    translog={"size_in_bytes": int},
)
_ACKNOWLEDGED = {"acknowledged": bool}
_ITEM = _Values({"status": int}, least=1)

# By endpoint id: the parts of the response that this program reads. A type is the type of the value, an
# object lists required fields.
_SHAPES: Mapping[str, Any] = {
    "bulk": {"items": _Items(_ITEM, least=1, usual={"create": {"result": "created", "status": 201}})},
    "close_point_in_time": {"succeeded": bool},
    "cluster.get_component_template": {
        "component_templates": _Items({"name": str, "component_template": {}})
    },
    "cluster.health": {"status": str},
    "cluster.put_component_template": _ACKNOWLEDGED,
    "count": {"count": int},
    "create": {"result": str},
    "delete": {"result": str},
    "get": {"_source": {}, "_seq_no": int, "_primary_term": int},
    "ilm.get_lifecycle": _Values({"policy": {}}),
    "ilm.put_lifecycle": _ACKNOWLEDGED,
    "index": {"result": str, "_seq_no": int, "_primary_term": int},
    "indices.create": _ACKNOWLEDGED,
    "indices.delete": _ACKNOWLEDGED,
    "indices.forcemerge": {"task": str},
    "indices.get": _Values({"settings": {"index": {"uuid": str}}}, least=1),
    "indices.get_index_template": {"index_templates": _Items({"name": str, "index_template": {}})},
    "indices.get_mapping": _Values({"mappings": {}}),
    "indices.get_settings": _Values({"settings": {"index": {}}}),
    "indices.put_index_template": _ACKNOWLEDGED,
    "indices.put_mapping": _ACKNOWLEDGED,
    "indices.put_settings": _ACKNOWLEDGED,
    "indices.refresh": {"_shards": _SHARDS},
    # Empty if no index matches.
    "indices.stats": _Values(_Values(_Optional(total=_STATS, primaries=_STATS))),
    "ingest.get_pipeline": _Values({}),
    "ingest.put_pipeline": _ACKNOWLEDGED,
    "mget": {"docs": _Items({"_id": str}, least=1)},
    "nodes.info": {"nodes": _Values({"version": str}, least=1)},
    "open_point_in_time": {"id": str},
    "scroll": {"hits": {"hits": _Items({"_id": str})}},
    "search": _SEARCH,
    "security.has_privileges": {
        "has_all_requested": bool,
        "cluster": _Values(bool),
        "index": _Values(_Values(bool)),
    },
    "tasks.get": {"completed": bool},
    "update": {"result": str, "_seq_no": int, "_primary_term": int},
}


def _mismatch(value: Any, expected: Any, where: str = "the response") -> str:
    """Return how a value differs from the expected shape, '' if it does not."""
    if isinstance(expected, _Items):
        if not isinstance(value, expected.container):
            return f"{where} is {_type_name(value)}"
        if len(value) < expected.least:
            return f"{where} is empty"
        items = value.values() if isinstance(value, dict) else value
        unusual = [item for item in items if item != expected.usual]
        problems = (_mismatch(item, expected.item, f"an entry of {where}") for item in unusual)
        return next((problem for problem in problems if problem), "")
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            return f"{where} is {_type_name(value)}"
        for name, shape in expected.items():
            if name not in value and isinstance(expected, _Optional):
                continue
            if name not in value:
                return f"{where} has no {name!r}"
            if problem := _mismatch(value[name], shape, repr(name)):
                return problem
        return ""
    # isinstance would accept a bool as an int.
    return "" if type(value) is expected else f"{where} is {_type_name(value)}"


def _type_name(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
