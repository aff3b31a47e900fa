"""The page in a real browser: it shows what it should, its script runs, and nothing is wrong with it."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
TIMEOUT_S = 120  # a guard against hanging

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


@pytest.fixture
def page(finished_project):
    return finished_project.root / "reports/tiny/index.html"


def test_a_broken_page_would_be_noticed(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<img src='missing.png'><script>undefined_function()</script>")
    complaints = find_complaints(browse(page, tmp_path / "profile", "--dump-dom"))
    assert any("undefined_function is not defined" in line for line in complaints)


def test_the_script_runs_and_nothing_is_complained_of(page, tmp_path):
    result = browse(page, tmp_path / "profile", "--dump-dom")
    assert find_complaints(result) == []
    # The script makes the heads of sortable tables reachable by keyboard.
    assert '<th tabindex="0">combo</th>' in result.stdout
    assert "Where the models look" in result.stdout


def test_a_click_on_a_head_sorts_the_table(page, tmp_path):
    click = "<script>document.querySelector('table.sortable th').click()</script></body>"
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", click))
    dom = browse(clicked, tmp_path / "profile", "--dump-dom").stdout
    assert 'aria-sort="descending"' in dom
    body = dom[dom.index("<tbody>") : dom.index("</tbody>")]
    assert body.index("<td>raw</td>") < body.index("<td>clahe</td>")


@pytest.mark.parametrize("width", [1280, 500])
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


def test_no_more_than_the_tables_scroll_on_a_phone(page, tmp_path):
    # What is wider than the window and cannot scroll by itself makes the whole page scroll sideways.
    measure = """<script>
    const page = document.documentElement; document.title = `${page.scrollWidth - page.clientWidth} too wide`;
    </script></body>"""
    measured = tmp_path / "measured.html"
    measured.write_text(page.read_text().replace("</body>", measure))
    dom = browse(measured, tmp_path / "profile", "--dump-dom", "--window-size=500,900").stdout
    assert "<title>0 too wide</title>" in dom
