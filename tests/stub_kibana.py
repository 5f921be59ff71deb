"""A stub of Kibana with saved objects in memory, whose responses are those observed from a real Kibana.

A real Kibana accepts some invalid objects and then damages or never displays them (no `typeMigrationVersion`,
no `version`). The stub records these in `faults`, and fails the test at its end.
"""

from __future__ import annotations

import base64
import email
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
Key = tuple[str, str]

_TYPES = ("index-pattern", "search", "dashboard", "tag", "links")
_KNOWN_MIGRATIONS = {"dashboard": "8.9.0", "index-pattern": "8.0.0", "search": "8.0.0", "tag": "8.0.0"}
_CHECKED_REFERENCES = ("index-pattern", "search")
_INNER_JSON = ("panelsJSON", "optionsJSON", "fieldAttrs", "fieldFormatMap", "runtimeFieldMap")


class ErrorResponse(Exception):
    """A response that ends the handling of a request."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body

    @classmethod
    def of(cls, status: int, message: str, **extra: Any) -> ErrorResponse:
        """Return an error in the format of Kibana."""
        names = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
        body = {"statusCode": status, "error": names.get(status, "Error"), "message": message}
        return cls(status, body | extra)


@dataclass
class Saved:
    """A saved object and its space ('' is the default one).

    `origin` is the id at the import if the object got another one.
    """

    space: str
    body: Json
    origin: str | None = None


@dataclass
class Received:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)


class StubKibana:
    """An HTTP server that runs within its context."""

    def __init__(
        self,
        port: int = 0,
        *,
        base_path: str = "",
        version: str = "9.5.3",
        migrates: bool = False,
    ) -> None:
        self.base_path = base_path
        self.user, self.password = "elastic", "changeme"
        self.api_key: str | None = None
        self.version = version
        self.migrates = migrates
        self.level = "available"
        self.starting = False
        # The setting status.allowAnonymous: whether /api/status needs no credentials.
        self.anonymous_status = True
        self.spaces = {"", "team"}
        # Errors with which every import fails, and parts of the paths that are forbidden.
        self.import_errors: list[Json] = []
        self.forbidden_paths: tuple[str, ...] = ()
        self.lists_missing = True
        self.lost_responses = 0
        self.objects: dict[Key, Saved] = {}
        self.defaults: dict[str, str] = {}
        self.requests: list[Received] = []
        self.imports: list[tuple[bool, list[Key]]] = []
        self.faults: list[str] = []
        self.waiting = 0
        self._released = threading.Event()
        self._released.set()
        self._lock = threading.Lock()
        self._last_save = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}{base_path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        if error is None:
            assert not self.faults, self.faults

    # Actions of a test

    @property
    def calls(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.requests]

    def body(self, kind: str, name: str) -> Json:
        return self.objects[kind, name].body

    def edit(self, kind: str, name: str, change: Callable[[Json], Any] = lambda attributes: None) -> None:
        """Save an object as the editor does: JSON serialized again, references reordered, a new time."""
        body = self.body(kind, name)
        attributes = _with_inner(body["attributes"], json.loads)
        change(attributes)
        body["attributes"] = _with_inner(
            attributes, lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        )
        body["references"] = body["references"][::-1]
        body["created_at"] = body["updated_at"] = self._now()
        body["version"] = "WzIsMV0="

    def open_discover(self, name: str, *fields: str) -> None:
        """Open Discover: Kibana counts the popularity of fields and adds missing attributes."""

        def count(attributes: Json) -> None:
            field_attributes = attributes.setdefault("fieldAttrs", {})
            for one in fields:
                field_attributes.setdefault(one, {})["count"] = (
                    field_attributes.get(one, {}).get("count", 0) + 1
                )
            for empty in ("sourceFilters", "fields"):
                attributes.setdefault(empty, "[]")
            attributes.setdefault("typeMeta", "{}")
            attributes.setdefault("allowHidden", False)

        self.edit("index-pattern", name, count)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Send no responses within this context."""
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    # Requests

    def handle(self, request: Received, content: bytes) -> tuple[int, Any]:
        self.waiting += 1
        self._released.wait(60)
        with self._lock:
            self.requests.append(request)
            try:
                return 200, self._route(request, content)
            except ErrorResponse as response:
                return response.status, response.body

    def _route(self, request: Received, content: bytes) -> Any:
        url = urlsplit(request.path)
        if not url.path.startswith(f"{self.base_path}/"):
            raise ErrorResponse.of(404, "Not Found")
        path = url.path.removeprefix(self.base_path)
        space = ""
        if in_space := re.match(r"/s/([a-z0-9_-]+)(?=/)", path):
            # Kibana does not check whether the space exists.
            space, path = in_space[1], path[in_space.end() :]
        if self.starting and path != "/api/status":
            raise ErrorResponse(503, b"Kibana server is not ready yet")
        if path == "/api/status":
            return self._status(request)
        if not self._is_authorized(request):
            raise ErrorResponse.of(401, "Unauthorized")
        if request.method == "POST" and not request.headers.get("kbn-xsrf"):
            raise ErrorResponse.of(400, "Request must contain a kbn-xsrf header.")
        if any(part in path for part in self.forbidden_paths):
            raise ErrorResponse.of(403, "Forbidden by the test")
        match request.method, path:
            case "GET", _ if path.startswith("/api/spaces/space/"):
                return self._space(path.rpartition("/")[2])
            case "POST", "/api/saved_objects/_export":
                return self._export(space, json.loads(content))
            case "POST", "/api/saved_objects/_import":
                overwrite = parse_qs(url.query).get("overwrite") == ["true"]
                return self._import(space, _uploaded(request.headers["content-type"], content), overwrite)
            case "GET", "/api/data_views/default":
                return {"data_view_id": self.defaults.get(space, "")}
            case "POST", "/api/data_views/default":
                body = json.loads(content)
                if body.get("force") or not self.defaults.get(space):
                    self.defaults[space] = body["data_view_id"]
                return {"acknowledged": True}
        raise ErrorResponse.of(404, "Not Found")

    def _is_authorized(self, request: Received) -> bool:
        if self.api_key is not None:
            return request.headers.get("authorization") == f"ApiKey {self.api_key}"
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {credentials}"

    def _status(self, request: Received) -> Any:
        if not self.anonymous_status and not self._is_authorized(request):
            raise ErrorResponse.of(401, "Unauthorized")
        if self.starting:
            raise ErrorResponse(503, {"status": {"overall": {"level": "unavailable"}}})
        status: Json = {"status": {"overall": {"level": self.level}}}
        if self._is_authorized(request):
            status = {"version": {"number": self.version}, "name": "stub", **status}
        if self.level in ("unavailable", "critical"):
            raise ErrorResponse(503, status)
        return status

    def _space(self, name: str) -> Json:
        if name not in self.spaces:
            raise ErrorResponse.of(404, "Not Found")
        return {"id": name, "name": name.title(), "disabledFeatures": []}

    def _export(self, space: str, body: Json) -> bytes:
        wanted = [(one["type"], one["id"]) for one in body.get("objects", [])]
        wanted += [key for key in self._in(space) if key[0] in body.get("type", [])]
        if not wanted:
            raise ErrorResponse.of(400, "Either `type` or `objects` are required.")
        if missing := [key for key in wanted if key not in self._in(space)]:
            errors = [
                {
                    "id": name,
                    "type": kind,
                    "error": {
                        "statusCode": 404,
                        "error": "Not Found",
                        "message": f"Saved object [{kind}/{name}] not found",
                    },
                }
                for kind, name in missing
            ]
            extra = {"attributes": {"objects": errors}} if self.lists_missing else {}
            raise ErrorResponse.of(400, "Error fetching objects to export", **extra)
        found = [self.objects[key].body for key in wanted]
        if not body.get("excludeExportDetails"):
            found.append({"exportedCount": len(found), "missingRefCount": 0, "missingReferences": []})
        return "\n".join(json.dumps(one, separators=(",", ":")) for one in found).encode()

    def _in(self, space: str) -> dict[Key, Saved]:
        return {key: saved for key, saved in self.objects.items() if saved.space == space}

    def _import(self, space: str, lines: bytes, overwrite: bool) -> Any:
        objects = [one for one in map(json.loads, lines.splitlines()) if "exportedCount" not in one]
        if any("id" not in one for one in objects):
            raise ErrorResponse.of(
                500, "An internal server error occurred. Check Kibana server logs for details."
            )
        keys = [(one["type"], one["id"]) for one in objects]
        if len(set(keys)) < len(keys):
            raise ErrorResponse.of(400, "Non-unique import objects detected")
        for one in objects:
            self._check(one)
        self.imports.append((overwrite, keys))
        errors = self.import_errors or [
            {"type": one["type"], "id": one["id"], "meta": {}, "error": error}
            for one in objects
            if (error := self._import_error(space, one, set(keys), overwrite))
        ]
        if errors:
            # With HTTP 200; nothing is written.
            return {"success": False, "successCount": len(objects) - len(errors), "errors": errors}
        results = self._write(space, objects)
        if self.lost_responses:
            self.lost_responses -= 1
            raise ErrorResponse(502, b"Bad Gateway")
        return {"success": True, "successCount": len(objects), "successResults": results, "warnings": []}

    def _check(self, one: Json) -> None:
        """Record what a real Kibana would accept without an error and damage."""
        where, attributes = f"{one['type']} {one['id']}", one.get("attributes", {})
        version = one.get("typeMigrationVersion")
        newest = _KNOWN_MIGRATIONS.get(one["type"])
        if newest and version is None:
            self.faults.append(f"{where} has no typeMigrationVersion: migrations would damage it")
        if version and newest and _numbers(version) > _numbers(newest):
            raise ErrorResponse.of(422, f"{where} belongs to a more recent version of Kibana")
        if one["type"] == "dashboard":
            if attributes.get("version") != 1:
                self.faults.append(f"{where} has no version: it could not be saved")
            if "searchSourceJSON" not in attributes.get("kibanaSavedObjectMeta", {}):
                self.faults.append(f"{where} has no searchSourceJSON: it would not open")
            json.loads(attributes["panelsJSON"])

    def _import_error(self, space: str, one: Json, sent: set[Key], overwrite: bool) -> Json | None:
        if one["type"] not in _TYPES:
            return {"type": "unsupported_type"}
        if not one.get("attributes", {}).get("name" if one["type"] == "tag" else "title"):
            return {
                "type": "unknown",
                "message": "[title]: expected value of type [string]",
                "statusCode": 400,
            }
        missing = [
            {"type": kind, "id": name}
            for kind, name in {(to["type"], to["id"]) for to in one.get("references", [])}
            if kind in _CHECKED_REFERENCES and (kind, name) not in sent | self._in(space).keys()
        ]
        if missing:
            return {"type": "missing_references", "references": missing}
        if not overwrite:
            if (one["type"], one["id"]) in self._in(space):
                return {"type": "conflict"}
            if there := self._copy_in(space, one["type"], one["id"]):
                return {"type": "conflict", "destinationId": there}
        return None

    def _copy_in(self, space: str, kind: str, name: str) -> str | None:
        """Return the id in this space of an object with this id in another space."""
        found = self._in(space).items()
        return next((key[1] for key, saved in found if key[0] == kind and saved.origin == name), None)

    def _write(self, space: str, objects: list[Json]) -> list[Json]:
        # Ids are unique over all spaces: an object whose id exists in another space gets a new id.
        renamed: dict[Key, str] = {
            (one["type"], one["id"]): self._copy_in(space, one["type"], one["id"]) or str(uuid.uuid4())
            for one in objects
            if (saved := self.objects.get((one["type"], one["id"]))) and saved.space != space
        }
        results = []
        for one in objects:
            key = one["type"], one["id"]
            name = renamed.get(key, str(one["id"]))
            references = [
                to | {"id": renamed.get((to["type"], to["id"]), to["id"])} for to in one.get("references", [])
            ]
            body = {
                "type": one["type"],
                "id": name,
                "attributes": self._migrated(one["type"], one["attributes"]),
                "references": references,
                "coreMigrationVersion": "8.8.0",
                "typeMigrationVersion": "10.3.0" if self.migrates else one.get("typeMigrationVersion"),
                "managed": one.get("managed", False),
                "created_at": self._now(),
                "version": "WzEsMV0=",
            }
            body["updated_at"] = body["created_at"]
            self.objects[one["type"], name] = Saved(space, body, one["id"] if key in renamed else None)
            results.append({"type": one["type"], "id": one["id"]})
            if key in renamed:
                results[-1]["destinationId"] = name
        return results

    def _migrated(self, kind: str, attributes: Json) -> Json:
        if not self.migrates or kind != "dashboard":
            return dict(attributes)
        panels = [panel | {"migrated": True} for panel in json.loads(attributes["panelsJSON"])]
        return attributes | {"panelsJSON": json.dumps(panels), "projectRouting": "none"}

    def _now(self) -> str:
        # No two saves within a millisecond, like saves by hand.
        self._last_save = max(time.time(), self._last_save + 0.001)
        return datetime.fromtimestamp(self._last_save, UTC).isoformat(timespec="milliseconds")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _respond(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, body = stub.handle(Received(self.command, self.path, headers), content)
                text = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("kbn-name", "stub")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = _respond

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _uploaded(content_type: str, content: bytes) -> bytes:
    """Return the file in a multipart body."""
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + content)
    if message.get_content_type() != "multipart/form-data":
        raise ErrorResponse.of(415, "Unsupported Media Type")
    for part in message.walk():
        if part.get_param("name", header="content-disposition") == "file":
            if not (part.get_filename() or "").endswith(".ndjson"):
                raise ErrorResponse.of(400, "Invalid file extension")
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            return payload
    raise ErrorResponse.of(400, "[request body.file]: expected value of type [Stream]")


def _with_inner(attributes: Json, change: Callable[[Any], Any]) -> Json:
    return {
        name: change(value) if name in _INNER_JSON and value else value for name, value in attributes.items()
    }


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
