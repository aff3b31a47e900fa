"""The benchmarks of a model in use, on a few images, for the scripts' sake and not for the numbers."""

import json
import subprocess
import sys

import pytest

from import_graph import ROOT
from serving import Server


@pytest.fixture
def run(tmp_path):
    def run_script(name, *arguments):
        output = tmp_path / f"{name}.json"
        command = [sys.executable, f"benchmarks/{name}.py", *map(str, arguments), "--output", str(output)]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout, json.loads(output.read_text())

    return run_script


def test_predict(run, exported):
    options = ("--n-images", 40, "--rounds", 2, "--n-for-memory", 60)
    table, result = run("predict", exported / "both.pneumo", exported / "data/raw/phantom", *options)
    assert set(result["formats"]) == set(result["peak_memory_mb"]) == {".keras", ".onnx"}
    for row in result["formats"].values():
        assert 0 < row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
    assert 50 < result["peak_memory_mb"][".onnx"] < result["peak_memory_mb"][".keras"]
    assert f"ONNX over Keras, network alone: {result['onnx_by_keras']:.2f}" in table


def test_unlike(run, exported):
    table, result = run("unlike", exported / "onnx.pneumo", exported / "data/raw/phantom", "--n-images", 8)
    assert result["runs"] == ["tiny/raw/cnn/0"]
    assert result["sets"]["test set"]["n"] == 8
    assert result["sets"]["photos"]["n"] == 2
    assert {"noise", "inverted", "upside down"} <= set(result["sets"])
    assert all(0 <= each["warned"] <= 1 for each in result["sets"].values())
    assert "crops of photos" in table


def test_serve(run, exported, tmp_path):
    server = Server.start(exported / "onnx.pneumo", tmp_path)
    try:
        options = ("--clients", 4, "--seconds", 3, "--pid", server.process.pid)
        _, result = run("serve", server.port, exported / "data/raw/phantom", *options)
    finally:
        server.stop()
    assert result["n_errors"] == 0
    assert result["n_answers"] > 20
    assert 0 < result["p50_s"] <= result["p95_s"] <= result["p99_s"]
    assert 50 < result["memory_mb_most"] < 1000
