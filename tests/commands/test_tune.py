import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pneumo.base.config import build, load_group, load_params
from pneumo.cli import main
from pneumo.commands.tune import hash_question
from pneumo.training.recipe import Recipe
from pneumo.training.search import Search
from ray_cluster import start_cluster
from workspace import edit_manifest, read_all, swap_test_labels


class TestTune:
    RANGES = """\
n_trials: 3
ranges:
  phases.fit.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
  network.units: {choices: [[4], [8]]}
"""

    @pytest.fixture
    def project(self, workspace, phantom_data):
        shutil.copytree(phantom_data, workspace / "data")
        (workspace / "conf/tune/dense.yaml").write_text(self.RANGES)
        return workspace

    @pytest.mark.usefixtures("project")
    def test_the_best_recipe_is_written_and_can_be_trained(self, capsys):
        assert main(["tune", "dense", "--combo", "raw"]) == 0
        assert "trial 3 of 3: " in capsys.readouterr().out
        trials = pd.read_csv("reports/tiny/tuning/dense/trials.csv")
        assert trials["state"].tolist() == ["complete"] * 3
        best = trials[trials["value"] == trials["value"].max()]  # so few images make ties
        text = Path("conf/model/dense_tuned.yaml").read_text()
        assert f"validation score of {trials['value'].max():.4f}" in text
        recipe = build(Recipe, load_group("model", "dense_tuned"), "tuned")
        is_it = (
            best["phases.fit.learning_rate"].map("{:.6g}".format)
            == f"{recipe.phases['fit'].learning_rate:.6g}"
        )
        assert recipe.network.units == json.loads(best.loc[is_it, "network.units"].item())
        for name in ("history.png", "importance.png"):
            assert Path("reports/tiny/tuning/dense", name).read_bytes().startswith(b"\x89PNG")

    @pytest.mark.usefixtures("project")
    def test_the_same_seed_gives_the_same_bytes(self):
        def tune(storage):
            assert main(["tune", "dense", "--combo", "raw", "--storage", f"sqlite:///{storage}.db"]) == 0
            return read_all(Path("reports/tiny/tuning")), Path("conf/model/dense_tuned.yaml").read_bytes()

        assert tune("first") == tune("second")

    @pytest.mark.usefixtures("project")
    def test_workers_share_the_trials(self, capsys):
        assert main(["tune", "dense", "--combo", "raw", "--workers", "2"]) == 0
        output = capsys.readouterr().out
        assert output.count("\ntrial ") + output.startswith("trial ") == 3
        assert "trial 3 of 3" in output
        assert pd.read_csv("reports/tiny/tuning/dense/trials.csv")["state"].tolist() == ["complete"] * 3
        logs = [Path(f"logs/tune_dense_{number}.log").read_text() for number in (0, 1)]
        assert sum(log.count("of 3: ") for log in logs) >= 3
        assert Path("conf/model/dense_tuned.yaml").is_file()

    @pytest.mark.promise
    @pytest.mark.usefixtures("project")
    # Of Ray's own modules.
    @pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
    )
    def test_workers_on_a_cluster_share_the_trials(self, capsys, tmp_path):
        command = ["tune", "dense", "--combo", "raw", "--storage", f"sqlite:///{tmp_path}/study.db"]
        with start_cluster(2) as cluster:
            assert main([*command, "--workers", "2", "--engine", "ray", "--address", cluster.address]) == 0
        output = capsys.readouterr().out
        assert [line.split(":")[0] for line in output.splitlines() if line.startswith("trial ")] == [
            f"trial {number} of 3" for number in (1, 2, 3)
        ]
        assert pd.read_csv("reports/tiny/tuning/dense/trials.csv")["state"].tolist() == ["complete"] * 3
        logs = [Path(f"logs/tune_dense_{number}.log").read_text() for number in (0, 1)]
        assert sum(log.count("of 3: ") for log in logs) >= 3

    @pytest.mark.usefixtures("project")
    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (["--engine", "ray"], "--storage: Expected a database that the cluster can reach"),
            (["--address", "auto"], "--address: Expected none without --engine ray"),
        ],
    )
    def test_engines_take_what_they_need(self, capsys, arguments, error):
        assert main(["tune", "dense", "--combo", "raw", *arguments]) == 1
        assert error in capsys.readouterr().err

    @pytest.mark.usefixtures("project")
    def test_a_worker_that_fails_is_named(self, capsys):
        Path("data/phantom/raw/images.npy").write_bytes(b"no array")
        assert main(["tune", "dense", "--combo", "raw", "--workers", "2"]) == 1
        error = capsys.readouterr().err
        assert "2 of 2 workers failed" in error
        assert "logs/tune_dense_1.log" in error

    @pytest.mark.usefixtures("project")
    @pytest.mark.parametrize("n_workers", ["0", "-1"])
    def test_no_workers_are_refused(self, capsys, n_workers):
        assert main(["tune", "dense", "--combo", "raw", f"--workers={n_workers}"]) == 1
        assert "--workers: Expected 1 or more" in capsys.readouterr().err

    @pytest.mark.usefixtures("project")
    def test_a_finished_study_is_not_run_again(self, capsys):
        for _ in range(2):
            assert main(["tune", "dense", "--combo", "raw"]) == 0
        assert capsys.readouterr().out.count("trial 3 of 3") == 1

    @pytest.mark.usefixtures("project")
    def test_another_question_is_another_study(self):
        """Each change alone gives a study of its own; more trials, and a new file, do not."""

        def ask(overrides=None, seed=0, combo="raw"):
            params = load_params()
            base = load_group("model", "dense", (params.models["dense"] or {}) | (overrides or {}))
            settings = build(Search, load_group("tune", "dense"), "tune dense")
            return hash_question(base, settings, seed, params, combo)

        def change(path, old, new):
            content = Path(path).read_bytes()
            Path(path).write_bytes(content.replace(old, new))
            asked = ask()
            Path(path).write_bytes(content)
            return asked

        ranges = "conf/tune/dense.yaml"
        manifest = Path("data/phantom/manifest.csv")
        assert ask() == ask() == change(ranges, b"n_trials: 3", b"n_trials: 4")
        others = [
            ask({"batch_size": 7}),
            ask(seed=1),
            ask(combo="clahe"),
            change(ranges, b"low: 1.0e-3", b"low: 2.0e-3"),
            change(ranges, b"[8]", b"[9]"),
            change("params.yaml", b"task: binary", b"task: subtype"),
            change(manifest, b",val,", b",train,"),
            change("data/phantom/raw/images.npy", b"\x00", b"\x01"),
        ]
        assert len({ask(), *others}) == 1 + len(others)

    def test_a_changed_weights_file_is_another_question(self, project):
        (project / "weights").mkdir(exist_ok=True)
        path = project / "weights/mobilenet075_imagenet_notop.weights.h5"
        asked = []
        for content in (b"a", b"b"):
            path.write_bytes(content)
            settings = build(Search, load_group("tune", "dense"), "tune dense")
            base = load_group("model", "mobilenet_frozen")
            asked.append(hash_question(base, settings, 0, load_params(), "raw"))
        assert asked[0] != asked[1]

    def test_the_test_set_is_not_looked_at(self, project):
        assert main(["tune", "dense", "--combo", "raw"]) == 0
        first = read_all(project / "reports/tiny/tuning")
        shutil.rmtree(project / "models/.tuning")
        edit_manifest(swap_test_labels)
        assert main(["tune", "dense", "--combo", "raw"]) == 0
        assert read_all(project / "reports/tiny/tuning") == first

    def test_a_recipe_without_ranges_is_named(self, project, capsys):
        (project / "conf/tune/dense.yaml").unlink()
        assert main(["tune", "dense", "--combo", "raw"]) == 1
        assert "Expected one of the files in conf/tune/" in capsys.readouterr().err
