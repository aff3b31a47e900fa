"""Under what the runs of an experiment were trained, and whether it was the same for all."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pneumo.base.config import RunKey

_KEYS = ("backend", "device", "processor")


def tabulate_environments(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Group runs by the versions, the backend, the device and the processor they were trained with.

    Args:
        records: run name -> content of its run.json.

    Returns:
        One row an environment, the commonest first: `backend`, `device`, `processor`, `versions` (text),
        `lock` (first digits of the hash of requirements.lock, or "-"), `n_runs`, `runs` (names).
    """
    rows = [
        {
            **{key: record[key] for key in _KEYS},
            "versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
            "lock": (record["hashes"]["requirements.lock"] or "-")[:12],
            "runs": name,
        }
        for name, record in records.items()
    ]
    keys = [*_KEYS, "versions", "lock"]
    groups = pd.DataFrame(rows, columns=[*keys, "runs"]).groupby(keys, sort=False)["runs"]
    table = groups.agg(n_runs="size", runs=", ".join).reset_index()
    return table.sort_values("n_runs", ascending=False, kind="stable", ignore_index=True)


def list_inputs(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what was trained on: name of a file -> SHA-256 of its content.

    Args:
        records: run name (`combo/model/seed`) -> content of its run.json.
    """
    inputs: dict[str, str] = {}
    for name, record in records.items():
        combo = name.split("/")[0]
        inputs["manifest.csv"] = record["hashes"]["manifest.csv"]
        inputs[f"images.npy of {combo}"] = record["hashes"]["images.npy"]
        if record["weights"]["sha256"]:
            inputs[record["weights"]["file"]] = record["weights"]["sha256"]
    return inputs


def find_same_images(records: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Find combos whose preprocessed images are the same to the byte.

    Args:
        records: run name (`combo/model/seed`) -> content of its run.json.

    Returns:
        Groups of two or more combos, in the order of `records`.
    """
    groups: dict[str, list[str]] = {}
    for name, record in records.items():
        combos = groups.setdefault(record["hashes"]["images.npy"], [])
        if (combo := name.split("/")[0]) not in combos:
            combos.append(combo)
    return [combos for combos in groups.values() if len(combos) > 1]


def list_fixed_models(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the models whose recipes train on images as they are, without random views.

    Args:
        records: run name (`combo/model/seed`) -> content of its run.json.
    """
    recipes = {name.split("/")[1]: record["recipe"] for name, record in records.items()}
    return [
        model
        for model, recipe in recipes.items()
        if not any(phase["augment"] for phase in recipe["phases"].values())
    ]


def update_seconds(
    known: pd.DataFrame | None, seconds: Mapping[RunKey, float | None], hashes: Mapping[RunKey, str]
) -> pd.DataFrame:
    """Keep how long each run took to train, from the first time that its predictions came out.

    Training the same run again gives the same predictions in other seconds; what is committed stays as it is.

    Args:
        known: what this function returned last; None if it never did.
        seconds: of the last training of each run; None where that is not known on this machine.
        hashes: of the predictions of each run.

    Returns:
        One row a run: `combo`, `model`, `seed`, `predictions` (hash) and `train_s` (nan where not known).
    """
    before = {}
    if known is not None:
        rows = known.dropna().itertuples(index=False, name=None)
        before = {(combo, model, seed, of_run): value for combo, model, seed, of_run, value in rows}
    return pd.DataFrame(
        [(*key, hashes[key], before.get((*key, hashes[key]), value)) for key, value in seconds.items()],
        columns=["combo", "model", "seed", "predictions", "train_s"],
    ).astype({"train_s": float})
