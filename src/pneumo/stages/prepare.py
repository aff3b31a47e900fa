"""prepare: data/raw/<source>/ -> manifest.csv and exploration/."""

import numpy as np
import pandas as pd

from pneumo.base.artifacts import write_file, write_folder
from pneumo.base.config import Params
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS
from pneumo.base.paths import exploration_dir, manifest_path, raw_dir
from pneumo.data.exploration import draw_samples
from pneumo.data.manifest import COLUMNS, Patients, find_oddities, scan_folder
from pneumo.data.sources import load_source
from pneumo.data.split import assign_split, find_leaks, group_images


def run(params: Params) -> None:
    """Check every file, carve out validation, and list what is odd in the data."""
    patients = load_source(params.source, params.data_overrides).patients
    images, quarantine = scan_folder(raw_dir(params.data_name), patients)
    require_classes(images)
    groups = group_images(images["patient"], images["sha256"])
    leaks = find_leaks(groups, images["official_split"])
    leaked = images.loc[leaks, ["id"]].rename(columns={"id": "path"})
    quarantine = pd.concat(
        [quarantine, leaked.assign(reason="its patient or its content is also in the test set")]
    )
    images, groups = images[~leaks].reset_index(drop=True), groups[~leaks]
    images["split"] = assign_split(
        images["official_split"],
        images["label"],
        images["subtype"],
        groups,
        params.split.val_fraction,
        params.split.seed,
    )
    manifest = images[list(COLUMNS)]
    with write_file(manifest_path(params.data_name)) as partial:
        manifest.to_csv(partial, index=False)
    with write_folder(exploration_dir(params.data_name)) as folder:
        quarantine.sort_values("path").to_csv(folder / "quarantine.csv", index=False)
        images.loc[~images["parsed"], ["id", "label"]].to_csv(folder / "unparsed_names.csv", index=False)
        find_oddities(images).to_csv(folder / "oddities.csv", index=False)
        np.save(folder / "samples.npy", draw_samples(manifest))
    parts = ", ".join(f"{n} {split}" for split, n in manifest["split"].value_counts().items())
    print(f"{len(manifest)} images of {manifest['patient'].nunique()} patients: {parts}")
    if patients is Patients.per_image:
        print("Each image counts as a patient of its own (patients: per_image).")
    print(f"{len(quarantine)} files set aside, lists in {exploration_dir(params.data_name)}")


def require_classes(images: pd.DataFrame) -> None:
    """Raise a PneumoError unless both classes are in the training and the test set."""
    for split in ("train", "test"):
        found = set(images.loc[images["official_split"] == split, "label"])
        missing = [name for name in CLASS_FOLDERS if name.lower() not in found]
        if missing:
            raise PneumoError(f"Expected readable images in {split}/{missing[0]}. Received: none")
