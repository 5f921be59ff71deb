"""The alert rules: about metrics that there are, and as promtool and its unit tests judge them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.test_http_metrics import full

DEPLOY = Path(__file__).parents[1] / "deploy" / "prometheus"
RULES = DEPLOY / "skeetslurper.rules.yml"
EXAMPLE = DEPLOY / "prometheus.example.yml"
UNIT_TESTS = Path(__file__).parent / "prometheus" / "skeetslurper.rules.test.yml"
MONITORING = Path(__file__).parents[1] / "docs" / "monitoring.md"

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool here (Debian: the package prometheus)"
)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def exported() -> set[str]:
    """The names of all samples of ours."""
    families = text_string_to_metric_families(full().metrics.render("")[0].decode())
    return {
        sample.name
        for family in families
        for sample in family.samples
        if sample.name.startswith("skeetslurper_")
    }


def test_every_metric_that_a_rule_names_is_exported() -> None:
    named = {name for rule in rules() for name in re.findall(r"skeetslurper_\w+", rule["expr"])}
    assert len(named) > 8
    assert named <= exported()
    outcomes = {outcome for rule in rules() for outcome in re.findall(r'outcome="(\w+)"', rule["expr"])}
    text = full().metrics.render("")[0].decode()
    assert outcomes
    assert all(f'outcome="{outcome}"' in text for outcome in outcomes)


def test_every_alert_says_what_is_and_what_to_do_and_is_tested() -> None:
    tests = UNIT_TESTS.read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["alert"] in tests


def test_every_metric_is_documented_and_no_other() -> None:
    table = re.findall(r"^\| `(skeetslurper_\w+)", MONITORING.read_text(encoding="utf-8"), flags=re.MULTILINE)
    parts = ("_bucket", "_sum", "_count", "_created")
    histograms = {name.removesuffix("_bucket") for name in exported() if name.endswith("_bucket")}
    others = {name for name in exported() if not any(name.endswith(f"{part}") for part in parts)}
    assert len(table) == len(set(table))
    assert set(table) == histograms | others


def test_the_example_asks_where_the_page_is() -> None:
    (job,) = yaml.safe_load(EXAMPLE.read_text())["scrape_configs"]
    assert job["job_name"] == "skeetslurper"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8642"]}]
    assert f'up{{job="{job["job_name"]}"}}' in rules()[0]["expr"]


@needs_promtool
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", str(RULES)),
        ("check", "config", str(EXAMPLE)),
        ("test", "rules", str(UNIT_TESTS)),
    ],
    ids=["rules", "config", "unit tests"],
)
def test_promtool_takes_them(words: tuple[str, ...]) -> None:
    done = subprocess.run([str(PROMTOOL), *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
