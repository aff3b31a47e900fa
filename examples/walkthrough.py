# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---
# ruff: noqa: D100

# %% [markdown]
# # From images to a model in use
#
# This notebook draws chest X-ray phantoms, prepares them in two ways, trains a small network on each,
# compares the two, and uses the better one: it predicts images, explains a prediction, and notices an image
# that is no X-ray. It takes one to two minutes on 2 cores.
#
# It is kept as text, so that changes can be read and the tests can run it. Open it in an editor that knows
# `# %%` cells, or make a notebook of it: `pip install jupytext notebook`, then `jupytext --to ipynb
# examples/walkthrough.py`.

# %%
import json
import os
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml

from pneumo.cli import main
from pneumo.prediction.bundle import Bundle
from pneumo.prediction.explainer import Explainer, lay_over
from pneumo.prediction.predictor import Predictor, list_images

# %% [markdown]
# ## An experiment
#
# An experiment is one file, `params.yaml`. Here it is made from the demo's, with fewer images and epochs,
# in a folder of its own.

# %%
here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "conf/experiment/demo.yaml").is_file())
folder = Path(tempfile.mkdtemp(prefix="walkthrough_"))
shutil.copytree(root / "conf", folder / "conf")
os.chdir(folder)

params = yaml.safe_load(Path("conf/experiment/demo.yaml").read_text())
params |= {
    "experiment": "walkthrough",
    "data": params["data"] | {"n_train": 300, "n_val": 16, "n_test": 100},
    "combos": {"raw": [], "equalize": ["equalize"]},
    "models": {"cnn": {"phases": {"fit": {"epochs": 10, "patience": 10}}}},
    "seeds": [0],
}
Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

# %% [markdown]
# ## The stages
#
# `dvc repro` runs these in a project, and only those that are due. Here they are called one after the
# other.


# %%
def run(*command: str) -> None:
    """Run a command of `pneumo` as in a terminal; an error stops the notebook."""
    print("pneumo", *command)
    if main(list(command)) != 0:
        raise RuntimeError(f"pneumo {' '.join(command)} failed")


run("download")
run("prepare")
run("audit")
run("weights", "--model", "cnn")
for combo in params["combos"]:
    run("preprocess", "--combo", combo)
    run("train", "--combo", combo, "--model", "cnn", "--seed", "0")
    run("evaluate", "--combo", combo, "--model", "cnn", "--seed", "0")
run("compare")

# %% [markdown]
# ## What came out
#
# Rows are ordered by validation, so nothing is chosen on the test set. One seed says nothing of how much is
# luck.

# %%
leaderboard = pd.read_csv("reports/walkthrough/leaderboard.csv")
columns = ["combo", "model", "val_roc_auc", "roc_auc", "roc_auc_low", "roc_auc_high", "sensitivity"]
print(leaderboard[columns].round(3).to_string())

# %% [markdown]
# ## One file
#
# `export` puts the network and all that a prediction needs besides into one file; by default of the
# leaderboard's first row.

# %%
run("export", "model.pneumo")
bundle = Bundle(Path("model.pneumo"))
print("steps:", [step.name for step in bundle.card.steps])
print("threshold:", bundle.card.threshold, "temperature:", round(bundle.card.temperature, 3))
print("ROC AUC on the test set:", json.dumps(vars(bundle.card.metrics["roc_auc"])))

# %% [markdown]
# ## Predictions
#
# Files are read while the network runs, in bounded memory. One that cannot be read gets a reason in place
# of a verdict.

# %%
predictor = Predictor(bundle)
paths = list_images(["data/raw/**/test/*/*.jpeg"])
predictions = list(predictor.predict(paths))
table = pd.DataFrame(
    [
        {
            "image": f"{each.path.parent.name}/{each.path.name}",
            "verdict": each.verdict.label,
            "pneumonia": each.verdict.probabilities["pneumonia"],
            "novelty": each.verdict.novelty,
        }
        for each in predictions
    ]
)
print(table.sample(8, random_state=0).round(3).to_string())
correct = table["verdict"] == table["image"].str.split("/").str[0].str.lower()
print(f"{correct.mean():.0%} of {len(table)} verdicts are right")

# %% [markdown]
# ## An explanation
#
# What the network saw, and over it where it found what speaks for pneumonia.

# %%
explainer = Explainer(bundle, predictor)
shown = sorted(predictions, key=lambda each: -each.verdict.probabilities["pneumonia"])[:3]
figure, axes = plt.subplots(2, len(shown), figsize=(3 * len(shown), 6))
for column, each in zip(axes.T, shown, strict=True):
    column[0].imshow(each.image, cmap="gray")
    column[0].set_title(f"{each.verdict.probabilities['pneumonia']:.2f}")
    column[1].imshow(lay_over(each.image, explainer.draw_map(each.image, "pneumonia")))
for each in axes.ravel():
    each.axis("off")
figure.savefig("explanations.png")
plt.show()

# %% [markdown]
# ## An image that is no X-ray
#
# A network has an answer for noise too. The distance from the training images says that it is not to be
# relied on: beyond 1 lies 1 % of the validation images.

# %%
size_px = predictor.card.size_px
noise = np.random.default_rng(0).integers(0, 256, (1, size_px, size_px), np.uint8)
(verdict,) = predictor.judge(noise)
print(f"noise: {verdict.label}, novelty {verdict.novelty:.1f}, unlike: {verdict.is_unlike_training}")
print(
    f"test images: {np.mean(table['novelty'] > 1):.1%} unlike, median novelty {table['novelty'].median():.2f}"
)

# %% [markdown]
# ## Next
#
# `pneumo predict FOLDER --model model.pneumo` does the same in a terminal, `pneumo serve --model
# model.pneumo` in the browser; see docs/using_a_model.md.
