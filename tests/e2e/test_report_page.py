"""The report in a real browser: phone and desktop, light and dark, sorted and filtered by clicks, without a request or an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.report import entries

from routed_agents.cli import main
from routed_agents.ledger import Ledger

pytestmark = pytest.mark.e2e
playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: pip install playwright")
ATTACK = "<script>alert(1)</script>"
OUT = Path(__file__).parents[2] / "out" / "report"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium, or name one in CHROMIUM")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with Ledger(folder / "costs.db") as ledger:
        for number, each in enumerate(entries(3_000)):
            record = each.to_record()
            if number == 7:
                record |= {"node": ATTACK, "thread": ATTACK, "codes": [ATTACK]}
                record["cost"] = {**record["cost"], "input": 10**13}  # type: ignore[dict-item]
            ledger.append(type(each).from_record(record))
    out = folder / "report.html"
    assert main(["report", str(folder / "costs.db"), "--html", str(out), "--title", f"Costs {ATTACK}"]) == 0
    return out


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_the_page_works_by_clicks_and_asks_for_nothing(browser: Any, report: Path, width: int, height: int, scheme: str) -> None:
    troubles: list[str] = []
    requests: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())

    assert page.evaluate("document.documentElement.scrollWidth") == width, "the page is wider than the screen"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(21, 23, 26)") == (scheme == "dark")
    assert page.locator("#simulated").is_visible()
    assert page.locator("h1").inner_text() == f"Costs {ATTACK}"
    assert page.locator("#chains .who").first.inner_text() == ATTACK

    names = page.locator("#by-node .pick")
    by_cost = names.all_inner_texts()
    page.locator("#by-node th button", has_text="node").click()
    assert names.all_inner_texts() == sorted(by_cost, key=str.lower)
    assert page.locator("#by-node th").first.get_attribute("aria-sort") == "ascending"

    spent = page.locator("#figures .value").first.inner_text()
    page.locator("#by-tier .pick", has_text="cheap").click()
    assert page.locator("#figures .value").first.inner_text() != spent
    assert set(page.locator("#steps tbody .tag").all_inner_texts()) == {"cheap"}
    page.locator("#clear").click()
    assert page.locator("#figures .value").first.inner_text() == spent
    page.locator("#filter-class").select_option(label="code review")
    assert page.locator("#by-node .pick").all_inner_texts() == ["review"]
    page.locator("#clear").click()

    page.locator("#chains summary").first.click()
    page.locator("#chains .node").first.wait_for()
    page.locator("#steps input").fill("no such step")
    assert page.locator("#steps .empty").is_visible()
    page.locator("#steps input").fill("")
    page.evaluate("scrollTo(0, 0)")
    OUT.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=OUT / f"{width}-{scheme}.png", full_page=True)
    for _ in range(1 if scheme == "dark" else 2):
        page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != background
    context.close()
    assert troubles == []
    assert requests == [report.as_uri()]
