"""`make screenshot`: screenshots of the page with simulated events, written to docs/."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from slurp.embedded.node import EmbeddedNode
from slurp.simulator.jetstream import Simulator
from tests.fixtures_es import PASSWORD
from tests.test_http_worker import HttpClient
from tests.worker import Worker

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

DOCS = Path(__file__).parents[1] / "docs"
# Width and height of the viewport in pixels, and the color scheme.
LOOKS = ((1280, 1720, "light"), (1280, 1720, "dark"), (390, 1300, "light"), (390, 1300, "dark"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshot", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=130, help="run time before the screenshots (default: 130)"
    )
    parser.add_argument(
        "--rate", type=float, default=400, help="mean number of events per second (default: 400)"
    )
    parser.add_argument("--into", type=Path, default=DOCS, help="output folder (default: docs)")
    options = parser.parse_args()
    if CHROMIUM is None:
        print("Chromium not found (Debian: install the package chromium)", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="skeetslurper-page-") as folder,
        EmbeddedNode(Path(folder) / "node", port=0, password=PASSWORD) as node,
        Simulator(port=0, seed=8) as jetstream,
        Worker(
            *("--jetstream", jetstream.url, "--es", node.url, "--no-kibana", "--refresh", "1s"),
            *("--http", "127.0.0.1:0", "--appview", f"http://127.0.0.1:{jetstream.port}"),
            home=Path(folder),
        ) as worker,
    ):
        client = HttpClient(worker)
        client.wait("/readyz", 200, timeout=120)
        _generate(jetstream, options.rate, options.seconds)
        _shoot(f"http://127.0.0.1:{client.port}/", options.into)
        jetstream.pause()
        return worker.stop()


def _generate(jetstream: Simulator, rate: float, seconds: float) -> None:
    """Generate events at a rate that rises and falls within minutes as it does within a day."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        jetstream.pause()
        jetstream.run_at(rate * (1 + 0.3 * math.sin(passed / 17) + 0.15 * math.sin(passed / 5)))
        time.sleep(2)


def _shoot(url: str, into: Path) -> None:
    for width, height, scheme in LOOKS:
        # A browser for each: some builds of headless Chromium end with their first window.
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page.goto(url)
            page.wait_for_timeout(300)
            path = into / f"page-{width}-{scheme}.png"
            page.screenshot(path=path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
