"""The page by keyboard and by the rules of axe-core: names, roles, headings, contrast (WCAG 2, A and AA)."""

import json
import shutil
import subprocess

import pytest
from small_report import EFFECTS, VIEWS, make_manifest, make_params, make_probes, make_report

from browser import BROWSER, DESKTOP, PHONE, Browser
from pneumo.report.page import write_report
from tiny_project import ROOT

AXE = "axe-core@4.10.3"
INSTALL_TIMEOUT_S = 120
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium or Chrome; `make browser` installs Debian's"
)


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """Return the text of axe-core, fetched by npm."""
    folder, npm = tmp_path_factory.mktemp("npm"), shutil.which("npm")
    if npm is None:
        pytest.skip(f"needs npm, which fetches {AXE}")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", AXE]
    try:
        subprocess.run(command, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"needs a registry from which npm can fetch {AXE}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.set_size(DESKTOP)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Write pages with everything and with little; return their files by name, and the committed one."""
    reports = {
        "full": make_report(
            external=True,
            margin=0.01,
            is_synthetic=True,
            manifest=make_manifest(patients="unknown"),
            probes=make_probes(1),
            views=[VIEWS],
            same_images=[["raw", "equalize"]],
            missing_runs=[f"raw/cnn/{seed}" for seed in range(5)],
        ),
        "bare": make_report(
            params=make_params(combos={"raw": []}, seeds=[0]),
            effects=EFFECTS.iloc[:0],
            galleries=[],
            samples=[],
            combo_photos=[],
        ),
    }
    files = {"committed": ROOT / "reports/demo/index.html"}
    for name, report in reports.items():
        folder = tmp_path_factory.mktemp(name)
        write_report(report, folder)
        files[name] = folder / "index.html"
    return files


def find_faults(browser, axe):
    browser.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    browser.evaluate(f"{axe}; undefined")
    options = json.dumps({"runOnly": RULES, "resultTypes": ["violations"]})
    found = browser.evaluate(
        f"axe.run(document, {options}).then(result => result.violations.map("
        "each => `${each.id}: ${each.nodes.slice(0, 3).map(node => node.html.slice(0, 200)).join(' ')}`))"
    )
    return list(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["full", "bare", "committed"])
def test_axe_finds_no_fault(browser, pages, axe, name, scheme):
    browser.set_scheme(scheme)
    browser.open(pages[name].as_uri())
    assert find_faults(browser, axe) == []


def test_axe_would_find_a_fault(browser, axe, tmp_path):
    page = tmp_path / "faulty.html"
    pale = "<p style='color: #ccc; background: #fff'>pale words</p>"
    page.write_text(f"<html lang=en><title>t</title><main><h1>h</h1>{pale}</main>")
    browser.open(page.as_uri())
    assert [fault.split(":")[0] for fault in find_faults(browser, axe)] == ["color-contrast"]


def test_the_keyboard_reaches_what_can_be_used(browser, pages):
    browser.open(pages["full"].as_uri())
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    name = "(each => each.id || each.textContent.trim().slice(0, 30))(document.activeElement)"
    stops = set()
    for _ in range(120):
        browser.press("Tab")
        stops.add(browser.evaluate(name))
    for wanted in ("Answer", "Provenance", "threshold", "prevalence", "youden"):
        assert wanted in stops
    assert any(stop.startswith("Leaderboard") for stop in stops)


def test_the_keyboard_moves_the_threshold(browser, pages):
    browser.open(pages["full"].as_uri())
    browser.evaluate("document.getElementById('threshold').focus()")
    before = browser.read("#sensitivity"), browser.read("#threshold-value")
    for _ in range(12):
        browser.press("ArrowRight")
    assert browser.read("#threshold-value") != before[1]
    assert float(browser.read("#sensitivity")) < float(before[0])


def test_a_heading_sorts_and_a_summary_opens_by_the_keyboard(browser, pages):
    browser.open(pages["full"].as_uri())
    browser.evaluate("document.querySelector('#table-leaderboard summary').focus()")
    browser.press("Enter")
    assert browser.evaluate("document.querySelector('#table-leaderboard').open")
    browser.evaluate("document.querySelector('#table-leaderboard th button').focus()")
    browser.press("Enter")
    sort = "document.querySelector('#table-leaderboard th').getAttribute('aria-sort')"
    assert browser.evaluate(sort) == "descending"


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", ["full", "bare", "committed"])
def test_the_page_has_no_complaints_and_asks_for_nothing(browser, pages, name, size):
    browser.set_size(size)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(pages[name].as_uri())
    too_wide = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    browser.set_size(DESKTOP)
    assert too_wide == 0
    assert browser.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)
