import shutil
import stat

import pytest

from pneumo.base.config import load_params
from pneumo.base.errors import PneumoError
from pneumo.cli import main
from pneumo.commands import report

# A shell's way to write where the browser is told to.
WRITE = 'for a in "$@"; do case $a in --print-to-pdf=*) echo half > "${a#--print-to-pdf=}";; esac; done'
BROWSER = next((found for name in report.BROWSERS if (found := shutil.which(name))), None)


@pytest.fixture
def page(workspace):
    path = workspace / "reports/tiny/index.html"
    path.parent.mkdir(parents=True)
    path.write_text("<title>t</title><details><summary>folded</summary><p>inside</p></details>")
    return path


def install(folder, monkeypatch, script):
    """Put a program that behaves like a browser on the path, and nothing else."""
    program = folder / "bin/chromium"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    monkeypatch.setattr(report, "BROWSERS", ("chromium",))


@pytest.mark.usefixtures("page")
def test_it_says_where_the_page_is(capsys):
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "page: reports/tiny/index.html\n"


@pytest.mark.usefixtures("workspace")
def test_no_page_is_an_error_that_says_what_to_do(capsys):
    assert main(["report", "--pdf"]) == 1
    assert "Expected reports/tiny/index.html. Received: no such file. `dvc repro`" in capsys.readouterr().err


def test_no_browser_is_an_error_that_says_what_to_do(page, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(report, "BROWSERS", ("no-such-browser",))
    with pytest.raises(
        PneumoError, match=r"one of no-such-browser on the PATH\. Received: none\. Install Chromium"
    ):
        report.run(load_params(), pdf=True)


def test_a_browser_that_fails_leaves_the_old_pdf(page, tmp_path, monkeypatch):
    old = page.with_name("report.pdf")
    old.write_bytes(b"old")
    install(tmp_path, monkeypatch, f"{WRITE}; echo first >&2; echo no display >&2; exit 1")
    with pytest.raises(PneumoError, match=r"to print .*index\.html\. Received: no display"):
        report.run(load_params(), pdf=True)
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "report.pdf"]


@pytest.mark.usefixtures("page")
def test_a_browser_that_writes_nothing_is_an_error(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(PneumoError, match="Received: nothing"):
        report.run(load_params(), pdf=True)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome; `make browser` installs Debian's")
def test_the_page_becomes_a_pdf(page, capsys):
    assert main(["report", "--pdf"]) == 0
    assert capsys.readouterr().out == "PDF: reports/tiny/report.pdf\n"
    content = page.with_name("report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert content.rstrip().endswith(b"%%EOF")
