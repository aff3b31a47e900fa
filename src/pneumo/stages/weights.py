"""weights: weights_dir -> models/.weights/<model>.json, which ImageNet weights a recipe starts from.

A stage of its own, so that a changed file trains again the models that start from it, and no others.
"""

from pathlib import Path

from pneumo.base.artifacts import hash_file, write_json
from pneumo.base.config import Params, build, load_group
from pneumo.base.paths import weights_record_path
from pneumo.training.recipe import Recipe


def run(params: Params, model: str) -> None:
    """Name the weights file of a recipe and its hash; Keras downloads what is not in `weights_dir`."""
    network = build(Recipe, load_group("model", model, params.models[model]), f"model {model}").network
    path = network.find_weights(Path(params.weights_dir))
    record = {
        "pretrained": network.pretrained,
        "file": path.name if path else None,
        "sha256": hash_file(path) if path else None,
    }
    write_json(weights_record_path(model), record)
    origin = "downloaded by Keras" if network.pretrained else "random weights"
    print(f"{model}: {path.name if path else origin}")
