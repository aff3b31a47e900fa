"""The page in a real browser: it shows what it should, its script runs, and nothing is wrong with it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_report import EFFECTS, make_params, make_report

from pneumo.report.page import write_report
from pneumo.report.plots import write_plots

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
TIMEOUT_S = 120  # a guard against hanging
ROOT = Path(__file__).parents[2]
SMALL_PX = 500  # Chromium's windows are no narrower

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium or Chrome; `make browser` installs Debian's"
)


def browse(path, profile, *options):
    """Open a page without a window and without a network, and return what the browser said."""
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            *options,
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )


def find_complaints(result):
    return [line for line in result.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_report(make_report(external=True, missing_runs=[f"raw/cnn/{seed}" for seed in range(5)]), folder)
    return folder / "index.html"


@pytest.fixture
def run(page, tmp_path):
    """Run a script on the page and return what it wrote into the page's title."""

    def run_script(script, *options, path=page):
        scripted = tmp_path / "scripted.html"
        scripted.write_text(path.read_text().replace("</body>", f"<script>{script}</script></body>"))
        result = browse(scripted, tmp_path / "profile", "--dump-dom", *options)
        assert find_complaints(result) == []
        return re.search("<title>(.*?)</title>", result.stdout, re.DOTALL)[1]

    return run_script


def test_a_broken_page_would_be_noticed(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<img src='missing.png'><script>undefined_function()</script>")
    complaints = find_complaints(browse(page, tmp_path / "profile", "--dump-dom"))
    assert any("undefined_function is not defined" in line for line in complaints)


def test_headings_of_tables_become_buttons(run):
    assert run("document.title = document.querySelectorAll('table.data th button').length > 20") == "true"


def test_a_click_on_a_heading_sorts_by_value(run):
    sort = """
    const table = document.querySelector("#table-leaderboard table");
    const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === "specificity");
    const read = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value).join(" ");
    const button = table.tHead.rows[0].cells[column].querySelector("button");
    button.click(); const falling = read(); button.click();
    document.title = `${falling}|${read()}|${table.tHead.rows[0].cells[column].getAttribute("aria-sort")}`;
    """
    falling, rising, direction = run(sort).split("|")
    expected = sorted(make_report().tables["leaderboard"]["specificity"], reverse=True)
    assert [float(value) for value in falling.split()] == pytest.approx(expected, rel=1e-5)
    assert rising.split() == falling.split()[::-1]
    assert direction == "ascending"


def test_undefined_values_sort_last_both_ways(run, tmp_path):
    leaderboard = make_report().tables["leaderboard"]
    broken = leaderboard.assign(specificity=leaderboard["specificity"].where(leaderboard.index != 1))
    write_report(make_report(leaderboard=broken), tmp_path)
    sort = """
    const table = document.querySelector("#table-leaderboard table");
    const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === "specificity");
    const button = table.tHead.rows[0].cells[column].querySelector("button");
    const last = () => [...table.tBodies[0].rows].at(-1).cells[column].dataset.value;
    button.click(); const falling = last(); button.click();
    document.title = `[${falling}][${last()}]`;
    """
    assert run(sort, path=tmp_path / "index.html") == "[][]"


def test_a_filter_hides_other_rows(run):
    script = """
    const table = document.querySelector("#table-runs"), field = table.querySelector("input[type=search]");
    field.value = "equalize cnn"; field.dispatchEvent(new Event("input"));
    const shown = [...table.querySelectorAll("tbody tr")].filter(row => !row.hidden);
    document.title = shown.map(row => row.cells[0].textContent + row.cells[1].textContent).join(" ")
      + "|" + table.querySelector("[role=status]").textContent;
    """
    assert run(script) == "equalizecnn equalizecnn|2 of 12"


def test_sliders_count_as_the_run_decides(run):
    points = make_report().details["operating_points"].set_index("method")
    script = """
    const text = id => document.getElementById(id).textContent;
    const read = () => `${text("sensitivity")} ${text("specificity")}`;
    const shown = [read()];
    for (const chip of document.querySelectorAll("#chips button")) {
      chip.click();
      shown.push(`${chip.textContent} ${read()}`);
    }
    document.title = shown.join("|");
    """
    first, *others = run(script).split("|")
    expected = points[["sensitivity", "specificity"]].map(lambda value: f"{value:.3f}")
    assert first == " ".join(expected.loc["youden"])
    assert {name: shown for name, _, shown in (each.partition(" ") for each in others)} == {
        method: " ".join(row) for method, row in expected.iterrows()
    }


def test_the_sliders_show_the_thresholds_of_the_table(run, tmp_path):
    report = make_report()
    points = report.details["operating_points"].copy()
    points.loc[points["method"] == "youden", "threshold"] = 0.99999  # above all scores
    write_report(make_report(details=dict(report.details) | {"operating_points": points}), tmp_path)
    script = """
    const text = id => document.getElementById(id).textContent;
    const read = () => `${text("threshold-value")} ${text("sensitivity")} ${text("specificity")}`;
    const shown = [read()];
    for (const chip of document.querySelectorAll("#chips button")) {
      chip.click();
      shown.push(text("threshold-value"));
    }
    document.title = shown.join("|");
    """
    first, *others = run(script, path=tmp_path / "index.html").split("|")
    assert first == "1.00 0.000 1.000"
    assert [float(text) for text in others] == pytest.approx(points["threshold"].tolist(), rel=0.005)


def test_predictive_values_follow_the_prevalence(run):
    script = """
    const text = id => document.getElementById(id).textContent;
    const slider = document.getElementById("prevalence");
    slider.value = 50;
    slider.dispatchEvent(new Event("input"));
    const numbers = ["sensitivity", "specificity", "ppv", "npv"].map(text).join(" ");
    document.title = `${numbers}|${text("sentence")}`;
    """
    numbers, sentence = run(script).split("|")
    sensitivity, specificity, ppv, npv = map(float, numbers.split())
    assert ppv == pytest.approx(sensitivity / (sensitivity + 1 - specificity), abs=0.002)
    assert npv == pytest.approx(specificity / (specificity + 1 - sensitivity), abs=0.002)
    assert sentence.startswith("Of 1,000 examined, 500 have pneumonia.")


def test_the_point_moves_along_the_curve(run):
    script = """
    const dot = document.querySelector("#points .dot.at"), slider = document.getElementById("threshold");
    const at = value => {
      slider.value = value;
      slider.dispatchEvent(new Event("input"));
      return Number(dot.getAttribute("cx"));
    };
    document.title = [at(0), at(slider.max)].join(" ");
    """
    lenient, strict = map(float, run(script).split())
    assert lenient > strict + 200


def test_links_of_the_contents_lead_to_sections(run):
    script = """
    document.title = [...document.querySelectorAll("nav.contents a")]
      .filter(link => !document.getElementById(link.hash.slice(1))).length;
    """
    assert run(script) == "0"


def test_what_is_folded_is_printed(run):
    script = """
    dispatchEvent(new Event("beforeprint"));
    const closed = document.querySelectorAll("details:not([open])").length;
    dispatchEvent(new Event("afterprint"));
    document.title = `${closed} ${document.querySelectorAll("details:not([open])").length > 3}`;
    """
    assert run(script) == "0 true"


@pytest.mark.parametrize("width", [1300, SMALL_PX])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_drawn(page, tmp_path, width, scheme):
    screenshot = tmp_path / "page.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    result = browse(
        page, tmp_path / "profile", f"--screenshot={screenshot}", f"--window-size={width},6000", *dark
    )
    assert find_complaints(result) == []
    pixels = np.asarray(Image.open(screenshot).convert("L"), float)
    assert pixels.shape == (6000, width)
    # Text and pictures all the way down, on paper that is light or dark.
    assert (pixels.reshape(12, -1).std(axis=1)[:8] > 5).all()
    paper = np.median(pixels)
    assert paper > 200 if scheme == "light" else paper < 60


@pytest.mark.parametrize("width", [390, 800, 1300])
@pytest.mark.parametrize("is_open", [False, True])
def test_the_page_never_scrolls_sideways(run, width, is_open):
    # A frame can be as narrow as a phone, which a window cannot.
    script = f"""
    if (self === top) {{
      const frame = document.createElement("iframe"), text = document.documentElement.outerHTML;
      frame.style = "width: {width}px; height: 900px; position: absolute; border: 0";
      frame.srcdoc = text;
      document.body.replaceChildren(frame);
      frame.onload = () => {{
        const inner = frame.contentDocument;
        const folded = inner.querySelectorAll("details:not([open])");
        if ({str(is_open).lower()}) folded.forEach(each => {{ each.open = true; }});
        const root = inner.documentElement;
        document.title = `${{root.clientWidth}} ${{root.scrollWidth - root.clientWidth}}`;
      }};
    }}
    """
    window, too_wide = map(int, run(script, f"--window-size={max(width, SMALL_PX)},900").split())
    assert width - 20 <= window <= width
    assert too_wide == 0


@pytest.mark.parametrize("params", [make_params(combos={"raw": []}), make_params(seeds=[0])])
def test_a_page_with_less_has_no_complaints(tmp_path, params):
    write_report(make_report(params=params, galleries=[], samples=[], combo_photos=[]), tmp_path)
    assert find_complaints(browse(tmp_path / "index.html", tmp_path / "profile", "--dump-dom")) == []


def test_the_plots_of_dvc_are_drawn_without_a_network(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(ROOT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "*.local"))
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    (project / "dvc.yaml").write_text(yaml.safe_dump({"plots": pipeline["plots"]}))
    (project / "params.yaml").write_text("experiment: small\n")
    folder = project / "reports/small/plots"
    folder.mkdir(parents=True)
    report = make_report()
    best = (report.best["combo"], report.best["model"])
    write_plots(EFFECTS, {best: report.curve}, {best: report.matrix}, best[1], folder)
    environment = os.environ | {
        f"DVC_{kind}_DIR": str(tmp_path / kind) for kind in ("GLOBAL_CONFIG", "SITE_CACHE")
    }
    for command in (["config", "core.no_scm", "true"], ["plots", "show"]):
        result = subprocess.run(
            ["dvc", *command], cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
    page = project / "dvc_plots/index.html"
    assert not re.search(r"<(script|link)[^>]*(src|href)=", page.read_text())
    shown = browse(page, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=10000")
    assert find_complaints(shown) == []
    sizes = re.findall(r'<canvas width="(\d+)" height="(\d+)"', shown.stdout)
    assert len(sizes) == 3
    assert all(int(width) > 150 and int(height) > 100 for width, height in sizes)
