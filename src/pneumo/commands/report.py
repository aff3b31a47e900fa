"""report: the page of an experiment, or a PDF of it."""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from pneumo.base.artifacts import write_file
from pneumo.base.config import Params
from pneumo.base.errors import PneumoError
from pneumo.base.paths import report_dir

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge")
TIMEOUT_S = 300


def run(params: Params, pdf: bool) -> None:
    """Say where the page is, or print it.

    Args:
        params: the experiment.
        pdf: write report.pdf beside the page.

    Raises:
        PneumoError: there is no page yet, no browser, or the browser fails.
    """
    page = report_dir(params.experiment) / "index.html"
    if not page.is_file():
        raise PneumoError(f"Expected {page}. Received: no such file. `dvc repro` writes it.")
    if pdf:
        print_page(page, page.with_name("report.pdf"))
        print(f"PDF: {page.with_name('report.pdf')}")
    else:
        print(f"page: {page}")


def print_page(page: Path, target: Path) -> None:
    """Print a page as a PDF with a browser that is installed, without a window and without a network.

    Args:
        page: an HTML file.
        target: the PDF, complete or not at all.

    Raises:
        PneumoError: there is no browser, or it writes no PDF.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise PneumoError(
            f"Expected a browser to print with: one of {', '.join(BROWSERS)} on the PATH. Received: none. "
            "Install Chromium (`make browser` on Debian), or print the page from a browser of yours."
        )
    # Chromium's sandbox does not start for root. The page is one of ours and loads nothing.
    sandbox = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with TemporaryDirectory() as profile, write_file(target) as partial:
        command = [
            browser,
            "--headless",
            *sandbox,
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={partial.absolute()}",
            page.absolute().as_uri(),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if result.returncode != 0 or not partial.is_file():
            said = (result.stderr.strip().splitlines() or ["nothing"])[-1]
            raise PneumoError(f"Expected {browser} to print {page}. Received: {said}")
