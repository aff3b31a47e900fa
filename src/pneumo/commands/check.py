"""`pneumo check`: params.yaml, conf/, data and weights; nothing is decoded, trained or written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pneumo.base.config import Params, Split, build, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS, SPLITS
from pneumo.data.manifest import (
    Patients,
    count_unknown_patients,
    list_files,
    require_known_patients,
    tabulate_class_names,
    tabulate_names,
)
from pneumo.data.sources import Source, list_places, load_source
from pneumo.data.split import assign_split, find_leaks, group_images
from pneumo.preprocessing.combo import Step, find_equal_combos, find_ineffective_limits, parse_combo
from pneumo.training.recipe import Network, Recipe, find_weights

# Other outputs in data/<name>/, where each combo has a folder, and in data/, where each data set has one.
TAKEN_COMBOS = ("audit", "exploration", "manifest")
TAKEN_DATA = ("raw",)


def run(params: Params) -> None:
    """Check what can be checked in seconds, and print what would run.

    Raises:
        PneumoError: the pipeline could not run; the message names the key or file and says what to do.
    """
    _check_names("combos", params.combos, TAKEN_COMBOS)
    _check_names("data.name", [params.data_name], TAKEN_DATA)
    lines = _describe_data(load_source(params.source, params.data_overrides), params.split)
    combos = {name: parse_combo(name, steps, params.image_size_px) for name, steps in params.combos.items()}
    lines += _describe_combos(combos)
    for model, overrides in params.models.items():
        network = build(Recipe, load_group("model", model, overrides), f"model {model}").network
        lines.append(f"model {model}: {network.name}, {_describe_weights(network, params.weights_dir)}")
    for name, path in params.external.items():
        lines.append(f"external test set {name}: {_describe_external(name, Path(path).expanduser())}")
    lines.append(f"{len(params.runs)} runs, report in reports/{params.experiment}/")
    print("\n".join(lines))


def _check_names(key: str, names: Sequence[str] | Mapping[str, object], taken: Sequence[str]) -> None:
    for name in names:
        if name in taken:
            raise PneumoError(
                f"{key}: Expected a name that no other output has. Received: {name}. "
                f"Taken are {', '.join(taken)}."
            )


def _describe_data(source: Source, split: Split) -> list[str]:
    """Return lines on the images of a source, from the names of its files."""
    places = list_places(source)
    if places is None:
        return [f"data: {source.title}, to be downloaded"]
    names = tabulate_names(places, source.patients)
    require_known_patients(names, source.patients)
    lines = [f"data: {source.title}, {_describe_patients(names, source.patients)}"]
    for name in SPLITS:
        rows = names[names["official_split"] == name]
        lines.append(f"data: {name}: {_describe_labels(rows)}")
        if name != "val":
            _require_classes(rows, "data", f"{name}/")
    if n_others := len(places) - len(names):
        lines.append(f"data: {n_others} other files")
    return lines + _describe_split(names, split)


def _describe_patients(names: pd.DataFrame, patients: Patients) -> str:
    if patients is Patients.from_name:
        return f"{len(names)} images of {names['patient'].nunique()} patients"
    n_parsed = int(names["parsed"].sum())
    text = f"{len(names)} images, each counted as a patient of its own (patients: per_image)"
    return text + (f"; the patients of {n_parsed} are in their names" if n_parsed else "")


def _describe_split(names: pd.DataFrame, split: Split) -> list[str]:
    """Return a line on images that would be set aside, after checking that validation can be carved out."""
    groups = group_images(names["patient"], names["id"])
    leaks = find_leaks(groups, names["official_split"])
    kept = names[~leaks]
    assign_split(
        kept["official_split"], kept["label"], kept["subtype"], groups[~leaks], split.val_fraction, split.seed
    )
    if not leaks.any():
        return []
    return [f"warning: {leaks.sum()} training images are of patients of the test set and will not be used"]


def _describe_labels(names: pd.DataFrame) -> str:
    return ", ".join(f"{(names['label'] == name.lower()).sum()} {name.lower()}" for name in CLASS_FOLDERS)


def _require_classes(names: pd.DataFrame, where: str, folder: str) -> None:
    for name in CLASS_FOLDERS:
        if not (names["label"] == name.lower()).any():
            raise PneumoError(f"{where}: Expected images in {folder}{name}. Received: none")


def _describe_combos(combos: Mapping[str, Sequence[Step]]) -> list[str]:
    lines = []
    for name, steps in combos.items():
        lines.append(f"combo {name}: {' -> '.join(step.name for step in steps)}")
        lines += [f"warning: {text}" for text in find_ineffective_limits(name, steps)]
    for names in find_equal_combos(combos):
        lines.append(f"warning: the combos {', '.join(names)} give the same images")
    return lines


def _describe_weights(network: Network, weights_dir: str | None) -> str:
    if network.pretrained is None:
        return "random weights"
    if weights_dir is None:
        return "ImageNet weights that Keras downloads"
    return str(find_weights(network.pretrained, Path(weights_dir)))


def _describe_external(name: str, folder: Path) -> str:
    """Return the number of images of an external test set, from the names of its files."""
    if not folder.is_dir():
        raise PneumoError(f"external.{name}: Expected a folder. Received: {folder}")
    names = tabulate_class_names([path.relative_to(folder) for path in list_files(folder)])
    _require_classes(names, f"external.{name}", f"{folder}/**/")
    n_unknown = count_unknown_patients(names)
    unknown = f"; the patients of {n_unknown} are not known" if n_unknown else ""
    return f"{_describe_labels(names)}, in {folder}{unknown}"
