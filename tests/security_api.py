"""A stub of the part of Elasticsearch's security API that elk/setup.sh uses.

The embedded node cannot store native users.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.stub_server import JSON, Request, Response, StubServer

Json = dict[str, Any]


class SecurityApi(StubServer):
    """Responds as a real node does.

    The responses in `starting` are sent first, one for each request; `odd` replaces the response of a path.
    """

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.passwords = {"elastic": "changeme"}
        self.roles: dict[str, Json] = {}
        self.users: dict[str, Json] = {}
        self.starting: list[tuple[int, Json]] = []
        self.odd: dict[str, tuple[int, Json]] = {}
        # The paths of accepted requests that change something.
        self.changes: list[str] = []

    def _respond(self, request: Request) -> Response:
        status, body = self._result(request)
        return Response(status, json.dumps(body, separators=(",", ":")).encode(), JSON)

    def _result(self, request: Request) -> tuple[int, Json]:
        path, body = request.path.split("?")[0], json.loads(request.body or b"{}")
        if self.starting:
            return self.starting.pop(0)
        if (user := self._user(request)) is None:
            return 401, _error("security_exception", "unable to authenticate user [elastic] for REST request")
        if request.method != "GET":
            assert request.headers["Content-Type"] == "application/json"
            self.changes.append(path)
        if path in self.odd:
            return self.odd[path]
        match path.strip("/").split("/"):
            case ["_cluster", "health"]:
                return 200, {"cluster_name": "elk", "status": "green", "timed_out": False}
            case ["_security", "_authenticate"]:
                return 200, {"username": user, "roles": []}
            case ["_security", "user", name, "_password"]:
                return self._set_password(name, body) or (200, {})
            case ["_security", "user", name]:
                is_created = name not in self.users
                self.users[name] = {"roles": body["roles"]}
                return self._set_password(name, body) or (200, {"created": is_created})
            case ["_security", "role", name]:
                is_created = name not in self.roles
                self.roles[name] = body
                return 200, {"role": {"created": is_created}}
        return 405, _error("illegal_argument_exception", "no such path")

    def _user(self, request: Request) -> str | None:
        """Return the user that a request authenticates as, None if the password is wrong."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return user if scheme == "Basic" and self.passwords.get(user) == password else None

    def _set_password(self, name: str, body: Json) -> tuple[int, Json] | None:
        """Set a password; return a response if it is rejected."""
        if len(body["password"]) < 6:
            return 400, _error("action_request_validation_exception", "passwords must be at least [6] …")
        self.passwords[name] = body["password"]
        return None


def _error(error_type: str, reason: str) -> Json:
    cause = {"type": error_type, "reason": reason}
    return {"error": {"root_cause": [cause], **cause}}
