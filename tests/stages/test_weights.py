import hashlib
import json
import shutil
from pathlib import Path

import pytest

from pneumo.cli import main

NAME = "mobilenet075_imagenet_notop.weights.h5"
RECORD = Path("models/.weights/mobilenet_frozen.json")


@pytest.fixture
def folder(workspace):
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("models:\n", "models:\n  mobilenet_frozen: {}\n"))
    (workspace / "weights").mkdir(exist_ok=True)
    return workspace / "weights"


def record(model="mobilenet_frozen"):
    assert main(["weights", "--model", model]) == 0
    return json.loads(Path(f"models/.weights/{model}.json").read_text())


def test_the_file_of_a_recipe_is_named_with_its_hash(folder):
    (folder / NAME).write_bytes(b"weights")
    assert record() == {
        "pretrained": "mobilenet075",
        "file": NAME,
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    first = RECORD.read_bytes()
    (folder / "another.weights.h5").write_bytes(b"of no concern")
    assert record()
    assert RECORD.read_bytes() == first
    (folder / NAME).write_bytes(b"changed")
    record()
    assert RECORD.read_bytes() != first


@pytest.mark.usefixtures("folder")
def test_without_a_file_keras_downloads(capsys):
    assert record() == {"pretrained": "mobilenet075", "file": None, "sha256": None}
    assert capsys.readouterr().out == "mobilenet_frozen: downloaded by Keras\n"


def test_a_network_of_random_weights_needs_no_folder(folder, capsys):
    shutil.rmtree(folder)
    assert record("dense") == {"pretrained": None, "file": None, "sha256": None}
    assert capsys.readouterr().out == "dense: random weights\n"


def test_a_backbone_that_ends_early_has_a_file_of_its_own(folder):
    text = (folder.parent / "params.yaml").read_text()
    recipe = "mobilenet_frozen: {network: {name: resnet50, ends_at: conv4_block6_out}}"
    (folder.parent / "params.yaml").write_text(text.replace("mobilenet_frozen: {}", recipe))
    (folder / "resnet50_imagenet_notop.weights.h5").write_bytes(b"the whole")
    assert record()["file"] == "resnet50_imagenet_notop.weights.h5"
    (folder / "resnet50_imagenet_conv4_block6.weights.h5").write_bytes(b"its lower part")
    assert record()["file"] == "resnet50_imagenet_conv4_block6.weights.h5"
