"""The report in a real browser: every link leads to something visible, nothing is fetched, the console stays silent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from lowdata_cpt.analysis import commands
from lowdata_cpt.analysis.report import build_report
from lowdata_cpt.core.io import write_json

pytestmark = pytest.mark.browser
COMMITTED = sorted(Path(__file__).parents[2].glob("results/*/report.html"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    assert all(programs), "chromium and chromedriver are missing: tools/install-chromium"
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"):
        options.add_argument(f"--{argument}")
    for argument in ("disable-background-networking", "disable-component-update", "disable-sync", "disable-quic"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def made(small: Path, claims_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "study"
    shutil.copytree(small, folder)
    shutil.rmtree(folder / "qualitative")
    commands.make_claims(folder / "scores.csv", claims_file, folder, "embedded")
    commands.make_figures(folder, folder / "figures")
    write_json(folder / "scores.csv.prov.json", {"code": {"commit": "abc"}})
    write_json(folder / "not_run.json", {"nyuv2": "no data"})
    build_report(folder, folder / "report.html")
    return folder / "report.html"


def look(browser: WebDriver, path: Path) -> None:
    """Open a report, follow every link in it, and see that each target can be seen."""
    browser.get(path.resolve().as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    links = {link.get_attribute("href") for link in browser.find_elements(By.CSS_SELECTOR, "a[href]")}
    outside = [href for href in links if not href or not href.startswith(path.resolve().as_uri() + "#")]
    assert outside == [], "the report must be readable offline"
    # One round trip: sets the address as a click would, and asks whether the target is open, drawn and in view.
    unseen = browser.execute_async_script(
        """
        const [hashes, done] = arguments;
        (async () => {
          const bad = [];
          for (const hash of hashes) {
            location.hash = hash;
            await new Promise((ready) => setTimeout(ready, 0));
            const target = document.getElementById(decodeURIComponent(hash.slice(1)));
            const box = target && target.getBoundingClientRect();
            if (!box || box.height === 0 || box.top > innerHeight || box.bottom < 0) bad.push(hash);
          }
          done(bad);
        })();
        """,
        sorted("#" + href.partition("#")[2] for href in links if href),
    )
    assert unseen == []
    broken = browser.execute_script("return [...document.images].filter((i) => !i.naturalWidth).map((i) => i.alt)")
    assert broken == []
    console = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]  # type: ignore[attr-defined]
    assert console == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []


def test_every_link_of_a_report_leads_to_something_visible(browser: WebDriver, made: Path) -> None:
    look(browser, made)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_the_committed_reports_too(browser: WebDriver, path: Path) -> None:
    look(browser, path)


def test_a_reader_clicks_from_the_answer_to_a_cell(browser: WebDriver, made: Path) -> None:
    browser.get(made.resolve().as_uri())
    browser.find_element(By.CSS_SELECTOR, "nav a[href='#claims']").click()
    assert browser.find_element(By.ID, "claims").is_displayed()
    link = browser.find_element(By.CSS_SELECTOR, "#answer ~ .wide td a")
    target = str(link.get_attribute("href")).partition("#")[2]
    browser.execute_script("arguments[0].click()", link)
    assert browser.find_element(By.ID, target).is_displayed()


def test_the_filter_hides_the_rows_that_do_not_match(browser: WebDriver, made: Path) -> None:
    browser.get(made.resolve().as_uri())
    box = browser.find_element(By.CSS_SELECTOR, "input[data-table='scores-table']")
    box.send_keys("tabletop diet miou")
    rows = browser.find_elements(By.CSS_SELECTOR, "#scores-table tbody tr")
    shown = [row.text for row in rows if row.is_displayed()]
    assert 0 < len(shown) < len(rows)
    assert all("DIET-CP" in text and "tabletop" in text for text in shown)
