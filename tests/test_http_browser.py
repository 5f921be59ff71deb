"""The page in a real browser: how it looks at two widths and in two schemes, and what its script does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elasticsearch import Elasticsearch
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from slurp.embedded.node import EmbeddedNode
from slurp.pipeline.progress import Outcome
from tests.chromium import CHROMIUM
from tests.harness import InProcess
from tests.shown import EVIL, Shown, fill, fill_with_evil, linking, post, served
from tests.watched import NOWHERE, IdleWorker

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: the package chromium)"),
    pytest.mark.xdist_group("browser"),
]

LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
# WCAG 2.2, 1.4.3, for text of usual size.
LEAST_CONTRAST = 4.5

# Every text on the page whose colour is too near to that of its ground, as the browser has computed them.
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root it has no sandbox; what it shows is our own.
        yield (browser := playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]))
        browser.close()


@pytest.fixture
def shown(es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str) -> Shown:
    watched = IdleWorker(es_node.url, "ws://jetstream.example")
    watched.finish_startup()
    watched.probe.step()
    return Shown(watched, fresh_index_prefix)


class Tab:
    """A page with its complaints."""

    def __init__(
        self, browser: Browser, width: int = 1280, scheme: str = "light", script: bool = True
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=script,
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("dialog", self._refuse)

    def _refuse(self, dialog: Dialog) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
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
def test_it_can_be_read_everywhere(
    browser: Browser, shown: Shown, indexer: InProcess, es: Elasticsearch, width: int, scheme: str
) -> None:
    some_posts(indexer, es)
    shown.watched.batch(5)(Outcome(indexed=3, quarantined=2))
    for _ in range(3):
        shown.history.step()
    with served(shown) as address:
        tab = Tab(browser, width, scheme)
        for path in ("/", "/?q=coffee", "/?q=nothing+like+it"):
            tab.page.goto(f"{address}{path}")
            expect(tab.page.get_by_role("button", name="Pause")).to_be_visible()
            assert tab.page.evaluate("document.documentElement.scrollWidth") == width
            contrasts = tab.page.evaluate(CONTRASTS)
            assert len(contrasts) > 30
            assert min(contrasts)[0] >= LEAST_CONTRAST, min(contrasts)
        assert not tab.complaints
        # What it is called, for those who hear it.
        tab.page.goto(address)
        for role, name in (("main", ""), ("search", ""), ("searchbox", "Search the posts")):
            assert tab.page.get_by_role(role, name=name).count() == 1  # type: ignore[arg-type]
        assert tab.page.get_by_role("img", name="Events a second over the last").count() == 1
        assert tab.page.get_by_role("article").count() == 4
        assert tab.page.get_by_text("صباح الخير").evaluate("e => getComputedStyle(e).direction") == "rtl"
        tab.context.close()


def test_what_strangers_write_does_nothing(
    browser: Browser, shown: Shown, indexer: InProcess, es: Elasticsearch
) -> None:
    fill_with_evil(indexer, es)
    with served(shown) as address:
        tab = Tab(browser)
        tab.page.goto(address)
        assert tab.page.get_by_text(f"text{EVIL}", exact=True).count() == 2
        # The form brings it back as what was looked for.
        tab.page.get_by_role("searchbox").fill(EVIL)
        tab.page.get_by_role("button", name="Search").click()
        expect(tab.page.get_by_role("searchbox")).to_have_value(EVIL)
        assert tab.page.locator("script").count() == 1
        assert tab.page.locator("img").count() == 1
        assert tab.page.evaluate("[...document.links].every(a => /^https?:$/.test(a.protocol))")
        assert not tab.complaints
        tab.context.close()


def test_it_refreshes_itself_until_it_is_told_to_pause(
    browser: Browser, shown: Shown, indexer: InProcess, es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(indexer, es, post(1, "the first"))
    monkeypatch.setattr("slurp.web.queries._POSTS_FOR", 0.5)
    with served(shown) as address:
        tab = Tab(browser)
        tab.page.clock.install()
        tab.page.goto(address)
        expect(tab.page.get_by_role("article")).to_have_count(1)
        # Somebody is typing meanwhile.
        box = tab.page.get_by_role("searchbox")
        box.fill("half a wo")
        shown.watched.batch(1234)(Outcome(indexed=1234))
        fill(indexer, es, post(2, "the second"))
        tab.page.wait_for_timeout(600)
        tab.page.clock.run_for(5000)
        expect(tab.page.get_by_role("article")).to_have_count(2)
        expect(tab.page.locator(".tile", has_text="Indexed")).to_contain_text("1,234")
        expect(box).to_have_value("half a wo")
        expect(box).to_be_focused()

        tab.page.get_by_role("button", name="Pause").click()
        shown.watched.batch(1)(Outcome(indexed=1))
        tab.page.clock.run_for(20_000)
        expect(tab.page.locator(".tile", has_text="Indexed")).to_contain_text("1,234")
        tab.page.get_by_role("button", name="Go on").click()
        tab.page.clock.run_for(5000)
        expect(tab.page.locator(".tile", has_text="Indexed")).to_contain_text("1,235")
        assert not tab.complaints
    # The worker is gone.
    tab.page.clock.run_for(5000)
    expect(tab.page.locator("#offline")).to_contain_text("The worker does not answer; this is how it was at")
    tab.context.close()


def test_without_its_script_it_shows_the_same(
    browser: Browser, shown: Shown, indexer: InProcess, es: Elasticsearch
) -> None:
    some_posts(indexer, es)
    with served(shown) as address:
        tab = Tab(browser, script=False)
        tab.page.goto(address)
        assert tab.page.get_by_role("article").count() == 4
        tab.page.get_by_role("searchbox").fill("coffee")
        tab.page.keyboard.press("Enter")
        expect(tab.page.get_by_role("article")).to_have_count(1)
        expect(tab.page.get_by_text("1 post for “coffee”, the newest first.")).to_be_visible()
        tab.page.get_by_role("link", name="#coffee").first.click()
        expect(tab.page.get_by_text("1 post tagged #coffee, the newest first.")).to_be_visible()
        tab.page.get_by_role("link", name="Refresh").click()
        expect(tab.page.get_by_role("article")).to_have_count(4)
        assert tab.page.get_by_role("button", name="Pause").count() == 0
        tab.context.close()


def test_without_elasticsearch_it_says_why(browser: Browser) -> None:
    watched = IdleWorker(NOWHERE, "ws://jetstream.example")
    watched.finish_startup()
    watched.probe.step()
    watched.batch(77)
    with served(Shown(watched, "none")) as address:
        for width, scheme in LOOKS:
            tab = Tab(browser, width, scheme)
            tab.page.goto(address)
            expect(tab.page.get_by_role("heading", name="Nothing is indexed at the moment")).to_be_visible()
            expect(tab.page.get_by_text("77 events wait")).to_be_visible()
            assert tab.page.evaluate("document.documentElement.scrollWidth") == width
            assert min(tab.page.evaluate(CONTRASTS))[0] >= LEAST_CONTRAST
            assert not tab.complaints
            tab.context.close()
