"""examples/walkthrough.py runs, from the data to a prediction and its explanation."""

import os
import re
import subprocess
import sys

from import_graph import ROOT

WALKTHROUGH_LIMIT_S = 180  # it takes 1 to 2 minutes on 2 cores


def test_the_walkthrough_runs_from_top_to_bottom(tmp_path):
    environment = os.environ | {"MPLBACKEND": "Agg", "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "examples/walkthrough.py"]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WALKTHROUGH_LIMIT_S,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    (folder,) = tmp_path.glob("walkthrough_*")
    for name in ("reports/walkthrough/index.html", "model.pneumo", "explanations.png"):
        assert (folder / name).is_file()
    share = int(re.search(r"(\d+)% of 100 verdicts are right", process.stdout)[1])
    assert share > 60
    assert re.search(r"noise: .*unlike: (True|False)", process.stdout)


def test_the_walkthrough_is_a_notebook_of_small_cells():
    cells = re.split(r"^# %%.*$", (ROOT / "examples/walkthrough.py").read_text(), flags=re.MULTILINE)[1:]
    assert len(cells) > 10
    assert max(cell.count("\n") for cell in cells) < 30
