"""What elk/setup.sh uses of Elasticsearch's security API: the small node cannot store native users."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class SecurityApi(ThreadingHTTPServer):
    """Answers as a real node does. `starting` answers come first; `odd` replaces the answer of a path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.passwords = {"elastic": "changeme"}
        self.roles: dict[str, Json] = {}
        self.users: dict[str, Json] = {}
        self.starting: list[tuple[int, Json]] = []
        self.odd: dict[str, tuple[int, Json]] = {}
        self.changes: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: SecurityApi

    def do_GET(self) -> None:
        self._serve()

    do_PUT = do_POST = do_GET

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        status, answer = self._answer(path, json.loads(body or b"{}"))
        data = json.dumps(answer, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, path: str, body: Json) -> tuple[int, Json]:
        server = self.server
        if server.starting:
            return server.starting.pop(0)
        if (user := self._user()) is None:
            return 401, _error("security_exception", "unable to authenticate user [elastic] for REST request")
        if self.command != "GET":
            assert self.headers["Content-Type"] == "application/json"
            server.changes.append(path)
        if path in server.odd:
            return server.odd[path]
        match path.strip("/").split("/"):
            case ["_cluster", "health"]:
                return 200, {"cluster_name": "elk", "status": "green", "timed_out": False}
            case ["_security", "_authenticate"]:
                return 200, {"username": user, "roles": []}
            case ["_security", "user", name, "_password"]:
                return self._password(name, body) or (200, {})
            case ["_security", "user", name]:
                created = name not in server.users
                server.users[name] = {"roles": body["roles"]}
                return self._password(name, body) or (200, {"created": created})
            case ["_security", "role", name]:
                created = name not in server.roles
                server.roles[name] = body
                return 200, {"role": {"created": created}}
        return 405, _error("illegal_argument_exception", "no such path")

    def _user(self) -> str | None:
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return user if scheme == "Basic" and self.server.passwords.get(user) == password else None

    def _password(self, name: str, body: Json) -> tuple[int, Json] | None:
        if len(body["password"]) < 6:
            return 400, _error("action_request_validation_exception", "passwords must be at least [6] …")
        self.server.passwords[name] = body["password"]
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def _error(kind: str, reason: str) -> Json:
    return {"error": {"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason}}
