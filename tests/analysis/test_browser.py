"""The report in a real browser: every link leads to something visible, nothing is fetched, the console stays silent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from tests.analysis.test_report import full_study

pytestmark = pytest.mark.browser
SIZES = [(1280, 720), (390, 844)]  # a laptop's and a phone's window


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
    return full_study(small, claims_file, tmp_path_factory.mktemp("browser") / "study") / "report.html"


def show(browser: WebDriver, path: Path, size: tuple[int, int]) -> None:
    """Open a report in a window of exactly this size: a real one is never as narrow as a phone."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)  # type: ignore[attr-defined]
    browser.get("about:blank")
    browser.get(path.resolve().as_uri())


def look(browser: WebDriver, path: Path) -> None:
    """Open a report, follow every link in it, and see that each target can be seen."""
    browser.get(path.resolve().as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    links = {link.get_attribute("href") for link in browser.find_elements(By.CSS_SELECTOR, "a[href]")}
    page = path.resolve().as_uri()
    files = {href for href in links if href and not href.startswith(f"{page}#")}
    beside = path.resolve().parent.as_uri()
    lost = [href for href in files if not href.startswith(beside) or not Path(urlparse(href).path).is_file()]
    assert lost == [], "the report must be readable offline"
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
        sorted("#" + href.partition("#")[2] for href in links if href and href not in files),
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


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
@pytest.mark.parametrize("opened", [False, True], ids=["folded", "open"])
def test_nothing_is_wider_than_the_window(browser: WebDriver, made: Path, size: tuple[int, int], opened: bool) -> None:
    show(browser, made, size)
    if opened:
        browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    window, page = browser.execute_script("const d = document.documentElement; return [d.clientWidth, d.scrollWidth]")
    assert page == window <= size[0]
    wider = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter((one) => !one.closest('.wide, pre')"
        " && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert wider == []


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
def test_the_first_screen_is_the_picture_and_three_sentences(
    browser: WebDriver, made: Path, size: tuple[int, int]
) -> None:
    show(browser, made, size)
    shown = [browser.find_element(By.CSS_SELECTOR, "#answer img")]
    shown += browser.find_elements(By.CSS_SELECTOR, "#answer li")
    assert len(shown) == 4
    for one in shown:
        assert one.is_displayed()
        assert one.rect["y"] >= 0
        assert one.rect["y"] + one.rect["height"] <= size[1]
    assert shown[0].rect["height"] > 150
    smallest = min(
        float(browser.execute_script("return parseFloat(getComputedStyle(arguments[0]).fontSize)", one))
        for one in shown[1:]
    )
    assert smallest >= 14


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
def test_a_figure_opens_large_and_closes(browser: WebDriver, made: Path, size: tuple[int, int]) -> None:
    show(browser, made, size)
    figure = browser.find_element(By.ID, "figure-learning")
    image = figure.find_element(By.TAG_NAME, "img")
    before = image.rect["width"]
    browser.execute_script("arguments[0].scrollIntoView()", figure)
    image.click()
    assert figure.rect["width"] == browser.execute_script("return document.documentElement.clientWidth")
    assert image.rect["width"] > before or size[0] < 500
    figure.find_element(By.CSS_SELECTOR, "a.close").click()
    assert image.rect["width"] == before


def test_a_reader_clicks_from_a_gain_to_its_cell(browser: WebDriver, made: Path) -> None:
    show(browser, made, SIZES[0])
    browser.find_element(By.CSS_SELECTOR, "nav a[href='#claims']").click()
    assert browser.find_element(By.ID, "claims").is_displayed()
    link = browser.find_element(By.CSS_SELECTOR, ".domains td a")
    target = str(link.get_attribute("href")).partition("#")[2]
    assert not browser.find_element(By.ID, target).is_displayed()
    link.click()
    assert browser.find_element(By.ID, target).is_displayed()


def test_details_open(browser: WebDriver, made: Path) -> None:
    show(browser, made, SIZES[1])
    folded = browser.find_element(By.CSS_SELECTOR, "#claims ~ details")
    table = folded.find_element(By.TAG_NAME, "table")
    assert not table.is_displayed()
    folded.find_element(By.TAG_NAME, "summary").click()
    assert table.is_displayed()
