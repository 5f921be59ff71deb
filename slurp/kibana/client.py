"""A client for the part of Kibana's HTTP API that the installer needs: status, spaces, export, import."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import requests
from urllib3.exceptions import HTTPError

from slurp.config import Config
from slurp.logs import Secrets, cut
from slurp.options.values import basic_token
from slurp.response_body import read_body

Json = dict[str, Any]
Key = tuple[str, str]

MIN_VERSION = (8, 9)

# Seconds to connect, and between two pieces of a response. Kibana is optional, so a slow connection is
# retried later; an import of all objects may take a while.
_TIMEOUT = (5.0, 60.0)
# An export of all objects is 0.2 MB; edited ones may be larger, but not by a factor of 80.
_MAX_BYTES = 16 * 10**6
# Seconds for the body of a response.
_BODY_TIMEOUT = 60.0
# Limits of the texts of errors: characters of one, and number of objects listed.
_MAX_TEXT = 300
_MAX_ERRORS = 3


class NotReady(Exception):
    """Kibana is down, still starting or overloaded. The request should be retried."""


class Rejected(Exception):
    """Kibana rejected the request. It will succeed only after a change of the configuration."""


class Unauthorized(Rejected):
    """Kibana rejected the credentials."""


class Conflict(Exception):
    """An object to be created exists already. Nothing was imported."""


class Response(NamedTuple):
    """A complete response."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    @property
    def location(self) -> str | None:
        """The target of a redirect; None for other responses."""
        return self.headers.get("location") if self.status_code in (301, 302, 303, 307, 308) else None


class KibanaClient:
    """A client for one space of a Kibana."""

    def __init__(self, config: Config, secrets: Secrets) -> None:
        assert config.kibana is not None  # noqa: S101
        self.url = config.kibana
        self._config = config
        self._secrets = secrets
        self._secret = (config.es_api_key if self._uses_api_key else None) or config.kibana_pass
        self._space = config.kibana_space
        self.space_url = f"{self.url}/s/{self._space}" if self._space else self.url
        self._session = requests.Session()
        # Without the credentials of ~/.netrc, which are for other programs.
        self._session.trust_env = False
        self._session.headers["kbn-xsrf"] = "skeetslurper"
        self._session.verify = str(config.es_ca) if config.es_ca else True

    def close(self) -> None:
        self._session.close()

    def reload_secret(self) -> bool:
        """Read the password or API key from its file again; return True if it has changed.

        Raises ValueError when the file cannot be read.
        """
        file = self._config.kibana_secret_file
        if file is None or (secret := file.read()) == self._secret:
            return False
        self._secrets.add(secret, basic_token(self._config.kibana_user or self._config.es_user, secret))
        self._secret = secret
        return True

    @property
    def _uses_api_key(self) -> bool:
        return bool(self._config.es_api_key) and not self._config.kibana_user

    @property
    def _credentials(self) -> dict[str, str]:
        """The Authorization header."""
        if self._uses_api_key:
            return {"Authorization": f"ApiKey {self._secret}"}
        user = self._config.kibana_user or self._config.es_user
        return {"Authorization": f"Basic {basic_token(user, self._secret)}"}

    def status(self) -> str:
        """Return the version of Kibana. Raises NotReady or Rejected.

        The first request has no credentials, so that another program on this port does not receive them.
        """
        self._check_is_kibana(self._exchange("GET", f"{self.url}/api/status", {}))
        response = self._exchange("GET", f"{self.url}/api/status", self._credentials)
        self._check_authorization(response)
        body = _json(response)
        level = _dig(body, "status", "overall", "level")
        number = _dig(body, "version", "number")
        if isinstance(number, str) and major_minor(number) < MIN_VERSION:
            minimum = ".".join(map(str, MIN_VERSION))
            raise Rejected(f"version {number} is not supported (required: {minimum} or later)")
        if response.status_code == 200 and isinstance(level, str) and number is None:
            # Not a 401: without credentials, with a wrong password, and since 2026 for users without the
            # cluster privilege 'monitor', Kibana returns the level only.
            raise Unauthorized(f"{self._credentials_error()}; or the cluster privilege 'monitor' is missing")
        if isinstance(level, str) and level not in ("available", "degraded"):
            raise NotReady(f"status {_short(level)}")
        if response.status_code >= 500 or response.status_code == 429:
            raise NotReady(_error_text(response))
        if not isinstance(level, str) or not isinstance(number, str):
            raise NotReady("the response is not a status of Kibana")
        return _short(number)

    def _check_is_kibana(self, response: Response) -> None:
        """Check that this is Kibana's response to a request without credentials. Raises NotReady or Rejected.

        This is no authentication: a malicious server can imitate the response.
        """
        level = _dig(_json(response), "status", "overall", "level")
        if isinstance(level, str):
            if level not in ("available", "degraded"):
                raise NotReady(f"status {_short(level)}")
            if response.status_code == 200:
                return
        if "kbn-name" in response.headers and (response.status_code == 401 or response.location is not None):
            return
        if response.status_code == 404:
            raise Rejected("no Kibana at this path (include its base path in --kibana)")
        if response.status_code >= 500 or response.status_code == 429:
            raise NotReady(_error_text(response))
        self._check_redirect(response)
        raise NotReady(
            f"the response (HTTP {response.status_code}) is not a status of Kibana; no credentials were sent"
        )

    def check_space(self) -> None:
        """Raise Rejected if the space does not exist: Kibana would report success for an import into it."""
        if not self._space:
            return
        # Only a 404 counts: a user who may write into a space may lack the privilege to read its settings.
        response = self._exchange("GET", f"{self.url}/api/spaces/space/{self._space}", self._credentials)
        if response.status_code == 404:
            raise Rejected(f"space {self._space!r} does not exist (the id of a space is in its URL: /s/ID/)")

    def export(self, keys: Iterable[Key]) -> dict[Key, Json]:
        """Return those of these objects that exist, with all attributes."""
        wanted = list(keys)
        while wanted:
            response = self._request(
                "POST",
                "/api/saved_objects/_export",
                accept=(400,),
                json={
                    "objects": [{"type": kind, "id": name} for kind, name in wanted],
                    "excludeExportDetails": True,
                },
            )
            if response.ok:
                return {key: found for key, found in _exported(response) if key in wanted}
            # Kibana exports all objects or none, and lists the missing ones in the error.
            missing = _missing(response)
            if missing.isdisjoint(wanted):
                return self._export_singly(wanted, response)
            wanted = [key for key in wanted if key not in missing]
        return {}

    def _export_singly(self, wanted: Sequence[Key], response: Response) -> dict[Key, Json]:
        """Export each object by itself, for versions of Kibana that do not list the missing ones."""
        if len(wanted) > 1:
            return {key: found for one in wanted for key, found in self.export([one]).items()}
        if str(_dig(_json(response), "message")).startswith("Error fetching objects to export"):
            return {}
        raise Rejected(_error_text(response))

    def import_objects(self, objects: Sequence[Json], *, overwrite: bool) -> None:
        """Import all objects or none. Raises Conflict when one exists and `overwrite` is false.

        After NotReady the objects may have been imported nevertheless.
        """
        lines = b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in objects)
        response = self._request(
            "POST",
            f"/api/saved_objects/_import?overwrite={'true' if overwrite else 'false'}",
            files={"file": ("skeetslurper.ndjson", lines, "application/ndjson")},
        )
        body = _json(response)
        errors = [one for one in _list(_dig(body, "errors")) if isinstance(one, dict)]
        if errors and all(_is_plain_conflict(one) for one in errors):
            raise Conflict(_short(", ".join(map(_import_error, errors[:_MAX_ERRORS]))))
        if _dig(body, "success") is not True or errors:
            more = f" and {len(errors) - _MAX_ERRORS} more" if len(errors) > _MAX_ERRORS else ""
            reason = (
                "; ".join(map(_import_error, errors[:_MAX_ERRORS])) + more
                if errors
                else _error_text(response)
            )
            raise Rejected(f"nothing was imported: {reason}")
        for one in _list(_dig(body, "successResults")):
            if isinstance(one, dict) and one.get("destinationId"):
                raise Rejected(
                    f"{_name(one)} exists in another space, so Kibana imported it as "
                    f"{_short(one['destinationId'])}; delete both and restart"
                )

    def set_default_data_view(self, name: str) -> bool:
        """Make this data view the default unless there is one; return whether it was made the default."""
        if _dig(_json(self._request("GET", "/api/data_views/default")), "data_view_id"):
            return False
        # Without `force`, so that the first of two concurrent workers wins.
        self._request("POST", "/api/data_views/default", json={"data_view_id": name})
        return True

    def _request(self, method: str, path: str, accept: Sequence[int] = (), **body: Any) -> Response:
        """Send a request to an API of the space. Return a response with status 2xx or one of `accept`."""
        response = self._exchange(method, self.space_url + path, self._credentials, **body)
        self._check_authorization(response)
        if response.status_code >= 500 or response.status_code == 429:
            raise NotReady(_error_text(response))
        if response.status_code // 100 != 2 and response.status_code not in accept:
            raise Rejected(f"{method} {path.split('?')[0]}: {_error_text(response)}")
        return response

    def _exchange(self, method: str, url: str, credentials: Mapping[str, str], **body: Any) -> Response:
        try:
            with self._session.request(
                method,
                url,
                headers=credentials,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
                **body,
            ) as response:
                content = read_body(response.raw, _MAX_BYTES, time.monotonic() + _BODY_TIMEOUT)
                return Response(response.status_code, response.headers, content)
        except HTTPError as error:
            raise NotReady(f"incomplete response: {_short(error)}") from None
        except requests.exceptions.SSLError as error:
            raise NotReady(f"TLS: {_short(error)} (for a private CA set --es-ca)") from None
        except OSError as error:  # requests raises it also for a missing CA file
            raise NotReady(f"no response ({type(error).__name__})") from None

    def _check_authorization(self, response: Response) -> None:
        if response.status_code == 401:
            raise Unauthorized(self._credentials_error())
        if response.status_code == 403:
            raise Rejected(f"missing privilege: {_error_text(response)}")
        self._check_redirect(response)

    def _check_redirect(self, response: Response) -> None:
        if response.location is not None:
            raise Rejected(f"redirect to {_short(response.location)}: set --kibana to the final address")

    def _credentials_error(self) -> str:
        if self._uses_api_key:
            return "API key rejected: check --es-api-key or --es-api-key-file, or set --kibana-user"
        user = self._config.kibana_user or self._config.es_user
        return f"password of user {user!r} rejected: check --kibana-user and --kibana-pass-file"


def _json(response: Response) -> Any:
    """Return the parsed body; None if it is not JSON."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def _exported(response: Response) -> Iterable[tuple[Key, Json]]:
    for line in response.content.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise NotReady("invalid response to an export") from None
        if isinstance(found, dict) and {"type", "id"} <= found.keys():
            yield (found["type"], found["id"]), found


def _missing(response: Response) -> set[Key]:
    """Return the objects that an export did not find. Raises Rejected when it failed for another reason."""
    missing = set()
    for one in _list(_dig(_json(response), "attributes", "objects")):
        if not isinstance(one, dict):
            continue
        if _dig(one, "error", "statusCode") != 404:
            raise Rejected(f"export of {_name(one)} failed: {_short(_dig(one, 'error', 'message'))}")
        missing.add((str(one.get("type")), str(one.get("id"))))
    return missing


def _is_plain_conflict(error: Json) -> bool:
    return _dig(error, "error", "type") == "conflict" and not _dig(error, "error", "destinationId")


def _import_error(error: Json) -> str:
    """Return the error of one object of an import as text."""
    cause = _dig(error, "error")
    if not isinstance(cause, dict):
        return _name(error)
    missing = [_name(one) for one in _list(cause.get("references")) if isinstance(one, dict)]
    detail = ", ".join(missing) or cause.get("message") or cause.get("destinationId")
    return f"{_name(error)}: {_short(cause.get('type'))}" + (f" ({_short(detail)})" if detail else "")


def _name(one: Json) -> str:
    return _short(f"{one.get('type')} {one.get('id')}")


def _error_text(response: Response) -> str:
    """Return status and message of an error response."""
    message = _dig(_json(response), "message")
    text = message if isinstance(message, str) else response.content.decode(errors="replace")
    return f"{response.status_code} {_short(text)}".rstrip()


def _short(text: object) -> str:
    # The log replaces secrets within the text, so blanks are kept, and a cut is marked.
    return cut(re.sub(r"[\r\n]+", " ", str(text)).strip(), _MAX_TEXT)


def _dig(value: Any, *names: str) -> Any:
    """Return a nested value; None if one of the names is missing."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def major_minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(map(int, re.findall(r"[0-9]+", version)[:2]))
