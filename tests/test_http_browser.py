"""The page in a real browser: layout and contrast at two widths and in two color schemes, and its script."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elasticsearch import Elasticsearch
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from slurp.elastic.templates import TRENDS_INDEX
from slurp.embedded.node import EmbeddedNode
from slurp.pipeline.progress import BatchOutcome
from tests.harness import InProcess
from tests.idle_worker import NOWHERE, IdleWorker
from tests.rendered_page import EVIL, RenderedPage, fill, fill_with_evil, linking, post, served
from tests.screenshot import CHROMIUM

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: the package chromium)"),
    pytest.mark.xdist_group("browser"),
]

LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
# WCAG 2.2, 1.4.3, for text of usual size.
LEAST_CONTRAST = 4.5

# A script that returns each visible text with its contrast to the background, from the computed styles.
CONTRASTS = """() => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest("svg,noscript")) continue;
    const ink = light(parse(getComputedStyle(element).color)), paper = light(ground(element));
    found.push([(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), text]);
  }
  return found;
}"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium has no sandbox as root; the page is trusted.
        yield (browser := playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]))
        browser.close()


@pytest.fixture
def page(es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str) -> RenderedPage:
    worker = IdleWorker(es_node.url, "ws://jetstream.example")
    worker.finish_startup()
    worker.probe.step()
    return RenderedPage(worker, fresh_index_prefix)


class Tab:
    """A browser tab that collects console messages, errors, failed requests and dialogs."""

    def __init__(
        self, browser: Browser, width: int = 1280, scheme: str = "light", script: bool = True
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=script,
        )
        self.page: Page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(request.url))
        self.page.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def some_posts(indexer: InProcess, es: Elasticsearch) -> None:
    fill(
        *(indexer, es),
        post(1, "coffee first", langs=["en"], tags=["coffee"], **linking("https://www.example.org/x")),
        post(2, "صباح الخير", langs=["ar"]),
        post(3, "w" * 500, langs=["de"], tags=["x" * 60]),
        post(4, "zalgo " + "a\u0300\u0301\u0302\u0303\u0304" * 40),
    )


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_is_readable_at_all_sizes_and_color_schemes(
    browser: Browser, page: RenderedPage, indexer: InProcess, es: Elasticsearch, width: int, scheme: str
) -> None:
    some_posts(indexer, es)
    page.worker.batch(5)(BatchOutcome(indexed=3, quarantined=2))
    for _ in range(3):
        page.history.step()
    with served(page) as address:
        tab = Tab(browser, width, scheme)
        for path in ("/", "/?q=coffee", "/?q=nothing+like+it"):
            tab.page.goto(f"{address}{path}")
            expect(tab.page.get_by_role("button", name="Pause")).to_be_visible()
            assert tab.page.evaluate("document.documentElement.scrollWidth") == width
            contrasts = tab.page.evaluate(CONTRASTS)
            assert len(contrasts) > 30
            assert min(contrasts)[0] >= LEAST_CONTRAST, min(contrasts)
        assert not tab.problems
        # Accessible roles and names, as a screen reader announces them.
        tab.page.goto(address)
        for role, name in (("main", ""), ("search", ""), ("searchbox", "Search posts")):
            assert tab.page.get_by_role(role, name=name).count() == 1  # type: ignore[arg-type]
        assert tab.page.get_by_role("img", name="Events per second over the last").count() == 1
        assert tab.page.get_by_role("article").count() == 4
        assert tab.page.get_by_text("صباح الخير").evaluate("e => getComputedStyle(e).direction") == "rtl"
        tab.context.close()


def test_the_page_shows_what_people_like_and_whom_they_follow(
    browser: Browser, page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
    """As `make demo` prints it: text, name and handle."""
    did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
    names = {"did": did, "handle": "ana.example.com", "display_name": "Ana"}
    hour = {"index": indexer.index, "interval": "hour", "@timestamp": "2026-11-28T14:00:00Z", "rank": 1}
    post_url = f"https://bsky.app/profile/{did}/post/3m6abcdefgh2x"
    for measure, more in (
        ("posts_by_likes", {"text": "the coffee is ready", "url": post_url, "count": 1234}),
        ("people_by_followers", {"url": f"https://bsky.app/profile/{did}", "count": 56}),
    ):
        es.index(index=TRENDS_INDEX, document={**hour, **names, **more, "measure": measure}, refresh=True)
    with served(page) as address:
        tab = Tab(browser)
        tab.page.goto(address)
        trends = tab.page.get_by_role("region", name="The hour from 14:00 UTC")
        for text in ("Most liked posts", "the coffee is ready", "1,234 likes", "Most new followers", "56"):
            expect(trends.get_by_text(text, exact=True)).to_be_visible()
        expect(trends.get_by_role("link", name="Ana @ana.example.com")).to_have_count(2)
        assert f'href="{post_url}"' in trends.inner_html()
        assert did not in trends.inner_text()
        assert not tab.problems
        tab.context.close()


def test_untrusted_texts_have_no_effect(
    browser: Browser, page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
    fill_with_evil(indexer, es)
    with served(page) as address:
        tab = Tab(browser)
        tab.page.goto(address)
        assert tab.page.get_by_text(f"text{EVIL}", exact=True).count() == 2
        # The search form contains the query again after the search.
        tab.page.get_by_role("searchbox").fill(EVIL)
        tab.page.get_by_role("button", name="Search").click()
        expect(tab.page.get_by_role("searchbox")).to_have_value(EVIL)
        assert tab.page.locator("script").count() == 1
        assert tab.page.locator("img").count() == 1
        assert tab.page.evaluate("[...document.links].every(a => /^https?:$/.test(a.protocol))")
        assert not tab.problems
        tab.context.close()


def test_the_page_refreshes_itself_until_it_is_paused(
    browser: Browser,
    page: RenderedPage,
    indexer: InProcess,
    es: Elasticsearch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(indexer, es, post(1, "the first"))
    monkeypatch.setattr("slurp.web.queries._POSTS_TTL", 0.5)
    with served(page) as address:
        tab = Tab(browser)
        tab.page.clock.install()
        tab.page.goto(address)
        expect(tab.page.get_by_role("article")).to_have_count(1)
        # The refresh must not disturb typing.
        box = tab.page.get_by_role("searchbox")
        box.fill("half a wo")
        page.worker.batch(1234)(BatchOutcome(indexed=1234))
        fill(indexer, es, post(2, "the second"))
        tab.page.wait_for_timeout(600)
        tab.page.clock.run_for(5000)
        expect(tab.page.get_by_role("article")).to_have_count(2)
        expect(tab.page.locator(".tile", has_text="Indexed")).to_contain_text("1,234")
        expect(box).to_have_value("half a wo")
        expect(box).to_be_focused()

        tab.page.get_by_role("button", name="Pause").click()
        page.worker.batch(1)(BatchOutcome(indexed=1))
        tab.page.clock.run_for(20_000)
        expect(tab.page.locator(".tile", has_text="Indexed")).to_contain_text("1,234")
        tab.page.get_by_role("button", name="Resume").click()
        tab.page.clock.run_for(5000)
        expect(tab.page.locator(".tile", has_text="Indexed")).to_contain_text("1,235")
        assert not tab.problems
    # The worker has stopped.
    tab.page.clock.run_for(5000)
    expect(tab.page.locator("#offline")).to_contain_text("No answer from the worker; last update at")
    tab.context.close()


def test_without_javascript_the_page_works(
    browser: Browser, page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
    some_posts(indexer, es)
    with served(page) as address:
        tab = Tab(browser, script=False)
        tab.page.goto(address)
        assert tab.page.get_by_role("article").count() == 4
        tab.page.get_by_role("searchbox").fill("coffee")
        tab.page.keyboard.press("Enter")
        expect(tab.page.get_by_role("article")).to_have_count(1)
        expect(tab.page.get_by_text("1 post for “coffee”, newest first.")).to_be_visible()
        tab.page.get_by_role("link", name="#coffee").first.click()
        expect(tab.page.get_by_text("1 post with hashtag #coffee, newest first.")).to_be_visible()
        tab.page.get_by_role("link", name="Refresh").click()
        expect(tab.page.get_by_role("article")).to_have_count(4)
        assert tab.page.get_by_role("button", name="Pause").count() == 0
        tab.context.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_without_elasticsearch_the_page_displays_the_reason(
    browser: Browser, width: int, scheme: str
) -> None:
    worker = IdleWorker(NOWHERE, "ws://jetstream.example")
    worker.finish_startup()
    worker.probe.step()
    worker.batch(77)
    with served(RenderedPage(worker, "none")) as address:
        tab = Tab(browser, width, scheme)
        tab.page.goto(address)
        expect(tab.page.get_by_role("heading", name="No events are being indexed")).to_be_visible()
        expect(tab.page.get_by_text("77 events are in flight")).to_be_visible()
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        assert min(tab.page.evaluate(CONTRASTS))[0] >= LEAST_CONTRAST
        assert not tab.problems
        tab.context.close()
