"""The little of Kibana's HTTP API that we need."""

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
from slurp.response_body import read_body
from slurp.values import basic_token

Json = dict[str, Any]
Key = tuple[str, str]

MIN_VERSION = (8, 9)

# Kibana is an amenity: who does not connect soon is asked again later. An import of all may take a while.
_TIMEOUT = (5.0, 60.0)
# All our objects exported are 0.2 MB; those that somebody edited may be larger, but not by a factor of 80.
_MOST_BYTES = 16 * 10**6
# Seconds for what follows the head of an answer.
_WITHIN = 60.0
_MOST_TEXT = 300
_MOST_ERRORS = 3


class NotReady(Exception):
    """Kibana is down, still starting or overloaded; the text says which."""


class Refused(Exception):
    """Kibana answered that it will not; only somebody's help changes that."""


class Unauthorized(Refused):
    """It does not take the credentials."""


class Conflict(Exception):
    """Something is there that was to be created; nothing was imported."""


class Answer(NamedTuple):
    """What was answered, read to its end."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    @property
    def location(self) -> str | None:
        """Where a redirect leads."""
        return self.headers.get("location") if self.status_code in (301, 302, 303, 307, 308) else None


class Kibana:
    """One Kibana, seen from one space."""

    def __init__(self, config: Config, secrets: Secrets) -> None:
        assert config.kibana is not None  # noqa: S101
        self.url = config.kibana
        self._config = config
        self._secrets = secrets
        self._secret = (config.es_api_key if self._uses_api_key else None) or config.kibana_pass
        self._space = config.kibana_space
        self.space_url = f"{self.url}/s/{self._space}" if self._space else self.url
        self._session = requests.Session()
        # Credentials in ~/.netrc are for somebody else.
        self._session.trust_env = False
        self._session.headers["kbn-xsrf"] = "skeetslurper"
        self._session.verify = str(config.es_ca) if config.es_ca else True

    def close(self) -> None:
        self._session.close()

    def read_secret_again(self) -> bool:
        """After a refusal: whether the secret's file holds another one now. Raises ValueError."""
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
        """The header that has them."""
        if self._uses_api_key:
            return {"Authorization": f"ApiKey {self._secret}"}
        user = self._config.kibana_user or self._config.es_user
        return {"Authorization": f"Basic {basic_token(user, self._secret)}"}

    def status(self) -> str:
        """Return Kibana's version once it is available to us. Raises NotReady or Refused.

        It is asked without credentials first, so that they do not go to another program on its port.
        """
        self._recognize(self._exchange("GET", f"{self.url}/api/status", {}))
        answer = self._exchange("GET", f"{self.url}/api/status", self._credentials)
        self._check_rights(answer)
        body = _json(answer)
        level = _dig(body, "status", "overall", "level")
        number = _dig(body, "version", "number")
        if isinstance(number, str) and _numbers(number) < MIN_VERSION:
            least = ".".join(map(str, MIN_VERSION))
            raise Refused(f"version {number} is too old, {least} or later is needed")
        if answer.status_code == 200 and isinstance(level, str) and number is None:
            # No 401 here: to strangers, with a wrong password, and since 2026 to users without that
            # privilege, it tells the level and no more.
            raise Unauthorized(f"{self._refusal()}; or the cluster privilege 'monitor' is missing")
        if isinstance(level, str) and level not in ("available", "degraded"):
            raise NotReady(f"its status is {_short(level)}")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise NotReady(_told(answer))
        if not isinstance(level, str) or not isinstance(number, str):
            raise NotReady("what answers there does not describe itself as Kibana does")
        return _short(number)

    def _recognize(self, answer: Answer) -> None:
        """Check that a question without credentials was answered as Kibana does. Raises NotReady or Refused.

        That is no authentication: whoever wants to be taken for Kibana can answer so.
        """
        level = _dig(_json(answer), "status", "overall", "level")
        if isinstance(level, str):
            if level not in ("available", "degraded"):
                raise NotReady(f"its status is {_short(level)}")
            if answer.status_code == 200:
                return
        if "kbn-name" in answer.headers and (answer.status_code == 401 or answer.location is not None):
            return
        if answer.status_code == 404:
            raise Refused("there is no Kibana at this path (its base path is part of --kibana)")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise NotReady(_told(answer))
        self._check_redirect(answer)
        raise NotReady(
            f"what answers there ({answer.status_code}) does not describe itself as Kibana does, "
            "and is sent no credentials"
        )

    def check_space(self) -> None:
        """Raises Refused when there is no such space: Kibana would import into the void and say success."""
        if not self._space:
            return
        # Who may write into a space may not always read about it: only a clear no counts.
        answer = self._exchange("GET", f"{self.url}/api/spaces/space/{self._space}", self._credentials)
        if answer.status_code == 404:
            raise Refused(f"there is no space {self._space!r} (its id is in its URL: /s/ID/)")

    def export(self, keys: Iterable[Key]) -> dict[Key, Json]:
        """What is there of these objects, with all their attributes."""
        wanted = list(keys)
        while wanted:
            answer = self._ask(
                "POST",
                "/api/saved_objects/_export",
                accept=(400,),
                json={
                    "objects": [{"type": kind, "id": name} for kind, name in wanted],
                    "excludeExportDetails": True,
                },
            )
            if answer.ok:
                return {key: found for key, found in _exported(answer) if key in wanted}
            # It exports all or nothing, and names in the error those that are not there.
            missing = _missing(answer)
            if missing.isdisjoint(wanted):
                return self._export_singly(wanted, answer)
            wanted = [key for key in wanted if key not in missing]
        return {}

    def _export_singly(self, wanted: Sequence[Key], answer: Answer) -> dict[Key, Json]:
        if len(wanted) > 1:
            return {key: found for one in wanted for key, found in self.export([one]).items()}
        if str(_dig(_json(answer), "message")).startswith("Error fetching objects to export"):
            return {}
        raise Refused(_told(answer))

    def import_objects(self, objects: Sequence[Json], *, overwrite: bool) -> None:
        """Import all of them or none. Raises Conflict when one is there and `overwrite` is false.

        After NotReady they may have arrived all the same.
        """
        lines = b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in objects)
        answer = self._ask(
            "POST",
            f"/api/saved_objects/_import?overwrite={'true' if overwrite else 'false'}",
            files={"file": ("skeetslurper.ndjson", lines, "application/ndjson")},
        )
        body = _json(answer)
        errors = [one for one in _list(_dig(body, "errors")) if isinstance(one, dict)]
        if errors and all(_is_plain_conflict(one) for one in errors):
            raise Conflict(_short(", ".join(map(_error, errors[:_MOST_ERRORS]))))
        if _dig(body, "success") is not True or errors:
            more = f" and {len(errors) - _MOST_ERRORS} more" if len(errors) > _MOST_ERRORS else ""
            what = "; ".join(map(_error, errors[:_MOST_ERRORS])) + more if errors else _told(answer)
            raise Refused(f"nothing was imported: {what}")
        for one in _list(_dig(body, "successResults")):
            if isinstance(one, dict) and one.get("destinationId"):
                raise Refused(
                    f"another space holds {_name(one)}, so that here it became "
                    f"{_short(one['destinationId'])}: delete both and start again"
                )

    def set_default_data_view(self, name: str) -> bool:
        """Make it the default where there is none; whether it was made so."""
        if _dig(_json(self._ask("GET", "/api/data_views/default")), "data_view_id"):
            return False
        # Without `force`, so that of two that do this the first one wins.
        self._ask("POST", "/api/data_views/default", json={"data_view_id": name})
        return True

    def _ask(self, method: str, path: str, accept: Sequence[int] = (), **body: Any) -> Answer:
        """The answer of an API of our space: 2xx or a status in `accept`."""
        answer = self._exchange(method, self.space_url + path, self._credentials, **body)
        self._check_rights(answer)
        if answer.status_code >= 500 or answer.status_code == 429:
            raise NotReady(_told(answer))
        if answer.status_code // 100 != 2 and answer.status_code not in accept:
            raise Refused(f"{method} {path.split('?')[0]}: {_told(answer)}")
        return answer

    def _exchange(self, method: str, url: str, credentials: Mapping[str, str], **body: Any) -> Answer:
        try:
            with self._session.request(
                method,
                url,
                headers=credentials,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
                **body,
            ) as answer:
                content = read_body(answer.raw, _MOST_BYTES, time.monotonic() + _WITHIN)
                return Answer(answer.status_code, answer.headers, content)
        except HTTPError as error:
            raise NotReady(f"no whole answer: {_short(error)}") from None
        except requests.exceptions.SSLError as error:
            raise NotReady(f"TLS: {_short(error)} (a CA of your own: --es-ca)") from None
        except OSError as error:  # also what requests raises for a CA file that is gone
            raise NotReady(f"no answer ({type(error).__name__})") from None

    def _check_rights(self, answer: Answer) -> None:
        if answer.status_code == 401:
            raise Unauthorized(self._refusal())
        if answer.status_code == 403:
            raise Refused(f"we lack a right: {_told(answer)}")
        self._check_redirect(answer)

    def _check_redirect(self, answer: Answer) -> None:
        if answer.location is not None:
            raise Refused(f"it sends us to {_short(answer.location)}: set --kibana to where it is")

    def _refusal(self) -> str:
        if self._uses_api_key:
            return "it refuses the API key: check --es-api-key or --es-api-key-file, or set --kibana-user"
        user = self._config.kibana_user or self._config.es_user
        return f"it refuses the password of user {user!r}: check --kibana-user and --kibana-pass-file"


def _json(answer: Answer) -> Any:
    """The parsed body; None when it is no JSON."""
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        return None


def _exported(answer: Answer) -> Iterable[tuple[Key, Json]]:
    for line in answer.content.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise NotReady("the export is not what Kibana writes") from None
        if isinstance(found, dict) and {"type", "id"} <= found.keys():
            yield (found["type"], found["id"]), found


def _missing(answer: Answer) -> set[Key]:
    """The objects that an export could not find; raises Refused when it was kept from others."""
    missing = set()
    for one in _list(_dig(_json(answer), "attributes", "objects")):
        if not isinstance(one, dict):
            continue
        if _dig(one, "error", "statusCode") != 404:
            raise Refused(f"it does not export {_name(one)}: {_short(_dig(one, 'error', 'message'))}")
        missing.add((str(one.get("type")), str(one.get("id"))))
    return missing


def _is_plain_conflict(error: Json) -> bool:
    return _dig(error, "error", "type") == "conflict" and not _dig(error, "error", "destinationId")


def _error(error: Json) -> str:
    """One object's error of an import."""
    cause = _dig(error, "error")
    if not isinstance(cause, dict):
        return _name(error)
    absent = [_name(one) for one in _list(cause.get("references")) if isinstance(one, dict)]
    detail = ", ".join(absent) or cause.get("message") or cause.get("destinationId")
    return f"{_name(error)}: {_short(cause.get('type'))}" + (f" ({_short(detail)})" if detail else "")


def _name(one: Json) -> str:
    return _short(f"{one.get('type')} {one.get('id')}")


def _told(answer: Answer) -> str:
    """A failure in Kibana's own words."""
    message = _dig(_json(answer), "message")
    text = message if isinstance(message, str) else answer.content.decode(errors="replace")
    return f"{answer.status_code} {_short(text)}".rstrip()


def _short(text: object) -> str:
    # A secret within must stay recognisable to the log: blanks stay, and the cut is marked.
    return cut(re.sub(r"[\r\n]+", " ", str(text)).strip(), _MOST_TEXT)


def _dig(value: Any, *names: str) -> Any:
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", version)[:2]))
