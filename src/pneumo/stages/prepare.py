"""prepare: data/raw/<name>/ -> manifest.csv and exploration/."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.artifacts import write_array, write_file, write_folder
from pneumo.base.config import Params, Split
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS, FOLDS
from pneumo.base.paths import TABLE_NAME, exploration_dir, manifest_path, raw_dir
from pneumo.data.exploration import draw_samples
from pneumo.data.manifest import COLUMNS, Patients, find_oddities, scan_folder, scan_table
from pneumo.data.sources import load_source
from pneumo.data.split import assign_split, carve_test, check_folds, find_leaks, group_images
from pneumo.data.table import GROUP_COLUMNS


def run(params: Params) -> None:
    """Check every file, divide the images, and list what is odd in the data."""
    source, raw = load_source(params.source, params.data_overrides), raw_dir(params.data_name)
    has_table = (raw / TABLE_NAME).is_file()
    images, quarantine = scan_table(raw, source.patients) if has_table else scan_folder(raw, source.patients)
    groups = group_images(images["patient"], images["sha256"])
    if params.split.has_folds:
        check_folds(images, groups, params.split)
        images = images.assign(split=FOLDS, group=groups)
    else:
        test_fraction = source.settings.test_fraction if has_table else None
        images, leaked = divide_images(images, groups, params.split, test_fraction)
        quarantine = pd.concat([quarantine, leaked])
    columns = [*COLUMNS, "group"] if params.split.has_folds else COLUMNS
    manifest = images[[*columns, *(name for name in GROUP_COLUMNS if (images[name] != "").any())]]
    with write_file(manifest_path(params.data_name)) as partial:
        manifest.to_csv(partial, index=False)
    with write_folder(exploration_dir(params.data_name)) as folder:
        quarantine.sort_values("path").to_csv(folder / "quarantine.csv", index=False)
        images.loc[~images["parsed"], ["id", "label"]].to_csv(folder / "unparsed_names.csv", index=False)
        find_oddities(images).to_csv(folder / "oddities.csv", index=False)
        write_array(folder / "samples.npy", draw_samples(manifest))
    parts = ", ".join(f"{n} {split}" for split, n in manifest["split"].value_counts().items())
    if params.split.has_folds:
        parts = f"{params.split.n_folds} folds, drawn for each seed"
    print(f"{len(manifest)} images of {manifest['patient'].nunique()} patients: {parts}")
    if source.patients is Patients.per_image:
        print("Each image counts as a patient of its own (patients: per_image).")
    print(f"{len(quarantine)} files set aside, lists in {exploration_dir(params.data_name)}")


def divide_images(
    images: pd.DataFrame, groups: npt.NDArray[np.int32], split: Split, test_fraction: float | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the official test set, or carve one out, and carve validation out of the rest.

    Args:
        images: n rows, as `scan_table` returns them.
        groups: int32 array of shape (n,), what stays together.
        split: how to carve.
        test_fraction: of a table, for a test set that it does not state; None for a folder.

    Returns:
        The images with `split`, and `path` and `reason` of those that are left out.
    """
    official = images["official_split"]
    if test_fraction is not None and (official == "").all():
        official = carve_test(images["label"], images["subtype"], groups, test_fraction, split.seed)
    require_classes(images["label"], official)
    leaks = find_leaks(groups, official)
    leaked = images.loc[leaks, ["id"]].rename(columns={"id": "path"})
    images, groups, official = images[~leaks].reset_index(drop=True), groups[~leaks], official[~leaks]
    images["split"] = assign_split(
        official, images["label"], images["subtype"], groups, split.val_fraction, split.seed
    )
    return images, leaked.assign(reason="its patient or its content is also in the test set")


def require_classes(labels: pd.Series, splits: pd.Series) -> None:
    """Raise a PneumoError unless both classes are in the training and the test set."""
    for split in ("train", "test"):
        found = set(labels[splits == split])
        missing = [name for name in CLASS_FOLDERS if name.lower() not in found]
        if missing:
            raise PneumoError(f"Expected readable images in {split}/{missing[0]}. Received: none")
