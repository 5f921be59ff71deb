"""What is answered at which path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from slurp.http.health import Health
from slurp.http.metrics import Metrics
from slurp.http.page import Page, assets
from slurp.http.server import Answer, Request, plain


class Site:
    def __init__(self, health: Health, metrics: Metrics, page: Page) -> None:
        self._files = assets()
        self._paths: dict[str, Callable[[Request], Answer]] = {
            "/": page.render,
            "/healthz": lambda request: _verdict("\n".join(["alive", *health.impaired()]), health.stuck()),
            "/readyz": lambda request: _verdict("ready", health.unready()),
            "/metrics": lambda request: Answer(*metrics.render(request.accept)),
        }

    def answer(self, request: Request) -> Answer:
        if (file := self._files.get(request.path)) is not None:
            return file
        found = self._paths.get(request.path)
        return plain("there is no such page", HTTPStatus.NOT_FOUND) if found is None else found(request)


def _verdict(good: str, wrong: Sequence[str]) -> Answer:
    if wrong:
        return plain("\n".join(wrong), HTTPStatus.SERVICE_UNAVAILABLE)
    return plain(good)
