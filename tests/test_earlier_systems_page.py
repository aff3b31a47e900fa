"""docs/earlier_systems.md: made from the reports, and up to date."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from import_graph import ROOT

ROWS = """\
- {system: "001", row: A, claim: 75.7 %, experiment: e, combo: raw, model: a, unfreezes: true, why: x}
- {system: "001", row: B, claim: 23.4 %, experiment: e, combo: raw, model: b, why: y}
"""
WHICH = {"combo": "raw", "model": "a"}


def make_page(*options):
    script = [sys.executable, ROOT / "docs/make_earlier_systems.py", *options]
    subprocess.run(script, cwd=ROOT, check=True)


def test_the_page_in_the_repository_is_what_the_reports_say(tmp_path):
    make_page("--output", tmp_path / "earlier_systems.md")
    assert (tmp_path / "earlier_systems.md").read_text() == (ROOT / "docs/earlier_systems.md").read_text()


def test_every_row_names_a_preset_of_this_project():
    for row in yaml.safe_load((ROOT / "docs/earlier_systems.yaml").read_text()):
        params = yaml.safe_load((ROOT / f"conf/experiment/{row['experiment']}.yaml").read_text())
        assert row["combo"] in params["combos"]
        assert (ROOT / f"conf/model/{row['model']}.yaml").is_file()
        assert row["model"] in params["models"]


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


@pytest.fixture
def reports(tmp_path):
    """Make the reports of a model with two seeds, of the examples, of a search and of a range test."""
    root = tmp_path / "reports"
    numbers = {"accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85, "val_accuracy": 0.875}
    numbers |= {"roc_auc": 0.9, "roc_auc_low": 0.88, "roc_auc_high": 0.92, "val_roc_auc": 0.95}
    write_csv(root / "e/leaderboard.csv", [WHICH | numbers | {"n_seeds": 2}])
    write_csv(root / "e/runs.csv", [WHICH | {"accuracy": accuracy} for accuracy in (0.78, 0.82)])
    classes = {"normal": (0.75, 1), "bacterial": (1, 0.6666), "viral": (0.5, None)}
    scores = [
        WHICH | {"class": name, "sensitivity": sensitivity, "precision": precision}
        for name, (sensitivity, precision) in classes.items()
    ]
    write_csv(root / "e/classes.csv", scores)
    epochs = {0: {"head": [0.1], "all": [0.2, 0.6]}, 1: {"head": [0.1, 0.3, 0.3], "all": [0.4, 0.7]}}
    history = []
    for seed, phases in epochs.items():
        values = [(phase, value) for phase, values in phases.items() for value in values]
        for i, (phase, value) in enumerate(values):
            history.append(WHICH | {"seed": seed, "phase": phase, "epoch": i + 1, "val_accuracy": value})
    write_csv(root / "e/history.csv", history)
    verdicts = [("models", "better"), ("models", "worse"), ("models", "not_shown"), ("primary", "worse")]
    effects = [{"family": family, "verdict": verdict} for family, verdict in verdicts]
    write_csv(root / "system_001/effects.csv", effects)

    (root / "examples").mkdir()
    rows = {
        name: {
            "network": {"accuracy": accuracy, "roc_auc": 0.95},
            "rule": {"accuracy": 0.999, "roc_auc": 1.0},
        }
        for name, accuracy in (("order by class", 0.78), ("one order", 0.73), ("drawn", 0.93))
    }
    leak = {"n_epochs": 6, "rows": rows}
    (root / "examples/label_leak.json").write_text(json.dumps(leak))
    means = {"random images": 0.94, "random patients": 0.9}
    means = {
        name: {"accuracy": value, "roc_auc": 0.9, "shared_patients": 0.4} for name, value in means.items()
    }
    resplit = {"means": means, "runs": {"random images": [{}, {}]}}
    (root / "examples/resplit.json").write_text(json.dumps(resplit))
    kept = {"grey_values": 2.0, "black": 0.25, "bits": 0.8, "kept": 0.0123}
    combos = {"n_images": 5, "combos": {"base": kept, "edges": kept, "not_run": kept}}
    (root / "examples/combos.json").write_text(json.dumps(combos))
    rows = [numbers | {"combo": combo, "model": "system_000_cnn"} for combo in ("base", "edges")]
    write_csv(root / "system_000/leaderboard.csv", rows)
    effect = {"family": "by_model", "subject": "edges", "verdict": "worse"}
    effect |= {"difference": -0.05, "low": -0.08, "high": -0.02}
    primary = effect | {"family": "primary", "verdict": "not_shown", "difference": -0.04, "high": 0.001}
    write_csv(root / "system_000/effects.csv", [effect, primary])

    trials = [{"state": "complete", "value": 0.91}, {"state": "pruned", "value": 0.99}]
    write_csv(root / "system_004/tuning/cnn/trials.csv", trials)
    search = {"cnn": 0.9, "system_004_tuned": 0.905}
    rows = [
        {"combo": "raw", "model": model, "val_roc_auc": value, "roc_auc": value / 2}
        for model, value in search.items()
    ]
    write_csv(root / "system_004/leaderboard.csv", rows)
    rates = root / "system_002/learning_rate/system_002_resnet_finetune/rates.png"
    rates.parent.mkdir(parents=True)
    rates.touch()
    return root


def read_page(tmp_path, reports):
    (tmp_path / "rows.yaml").write_text(ROWS)
    options = {"--reports": reports, "--rows": tmp_path / "rows.yaml", "--output": tmp_path / "page.md"}
    make_page(*(each for option in options.items() for each in option))
    return (tmp_path / "page.md").read_text()


def test_what_was_measured_stands_on_the_page(tmp_path, reports):
    page = read_page(tmp_path, reports)
    flat = " ".join(page.split())
    measured = "80.0 % (75.0 to 85.0) | 78.0 to 82.0 | 87.5 % | 0.900 (0.880 to 0.920) | 0.950 | 2 |  | x |"
    for line in (
        f"| 001 | A | 75.7 % | {measured}",
        "| 001 | B | 23.4 % | not run yet |  |  |  |  |  |  |  |",
        "| 001 | A | 0.750 / 1.000 | 1.000 / 0.667 | 0.500 / - |",
        "| model | epoch 1 | epoch 2 |",
        "| A | 0.300 (0.200) | 0.650 (0.600) |",
        "| order by class | 78.0% | 0.950 | 99.9% | 1.000 |",
        "| base | 2 | 25% | 0.8 | 0.01 | 0.900 (0.880 to 0.920) | - |",
        "| edges | 2 | 25% | 0.8 | 0.01 | 0.900 (0.880 to 0.920) | -0.040 (-0.080 to +0.001): not shown |",
        "| random images | 94.0% | 0.900 | 40% |",
    ):
        assert line in page.splitlines()
    for text in ("means over 2 seeds", "224 px shrunk to 56, 6 epochs", "means over 5 training images"):
        assert text in page
    assert "the rule tells 99.9% of the classes, and the network 93.0%" in page
    assert "the leak adds 5.0 points" in page
    assert "2 recipes within the ranges of `conf/tune/cnn.yaml`, 1 of" in page
    assert "had a `val_auc` of 0.9100" in page
    assert "of its seeds is 0.9050, and 0.453 on" in flat
    assert "of `cnn`, the recipe that the search varies, 0.9000 and 0.450." in flat
    assert "2 of 3 pairs of models of that report are shown to differ" in flat
    assert "learning-rate range test" in page
    assert "system_000/index.html" in page
    assert "not_run" not in page
    assert "not the shared patients" not in page


def test_a_search_without_a_report_is_left_out(tmp_path, reports):
    (reports / "system_004/leaderboard.csv").unlink()
    assert "search of system 004" not in read_page(tmp_path, reports)


def test_what_was_not_measured_is_left_out(tmp_path):
    page = read_page(tmp_path, tmp_path / "none")
    assert page.count("not run yet") == 2
    assert "## " not in page
