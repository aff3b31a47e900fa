"""prepare: data/raw/<name>/ -> manifest.csv and exploration/."""

import pandas as pd

from pneumo.base.artifacts import write_array, write_file, write_folder
from pneumo.base.config import Params
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS
from pneumo.base.paths import TABLE_NAME, exploration_dir, manifest_path, raw_dir
from pneumo.data.exploration import draw_samples
from pneumo.data.manifest import COLUMNS, Patients, find_oddities, scan_folder, scan_table
from pneumo.data.sources import load_source
from pneumo.data.split import assign_split, carve_test, find_leaks, group_images
from pneumo.data.table import GROUP_COLUMNS


def run(params: Params) -> None:
    """Check every file, carve out validation, and list what is odd in the data."""
    source, raw = load_source(params.source, params.data_overrides), raw_dir(params.data_name)
    has_table = (raw / TABLE_NAME).is_file()
    images, quarantine = scan_table(raw, source.patients) if has_table else scan_folder(raw, source.patients)
    groups, official = group_images(images["patient"], images["sha256"]), images["official_split"]
    if has_table and (official == "").all():
        official = carve_test(
            images["label"], images["subtype"], groups, source.settings.test_fraction, params.split.seed
        )
    require_classes(images["label"], official)
    leaks = find_leaks(groups, official)
    leaked = images.loc[leaks, ["id"]].rename(columns={"id": "path"})
    quarantine = pd.concat(
        [quarantine, leaked.assign(reason="its patient or its content is also in the test set")]
    )
    images, groups, official = images[~leaks].reset_index(drop=True), groups[~leaks], official[~leaks]
    images["split"] = assign_split(
        official,
        images["label"],
        images["subtype"],
        groups,
        params.split.val_fraction,
        params.split.seed,
    )
    manifest = images[[*COLUMNS, *(name for name in GROUP_COLUMNS if (images[name] != "").any())]]
    with write_file(manifest_path(params.data_name)) as partial:
        manifest.to_csv(partial, index=False)
    with write_folder(exploration_dir(params.data_name)) as folder:
        quarantine.sort_values("path").to_csv(folder / "quarantine.csv", index=False)
        images.loc[~images["parsed"], ["id", "label"]].to_csv(folder / "unparsed_names.csv", index=False)
        find_oddities(images).to_csv(folder / "oddities.csv", index=False)
        write_array(folder / "samples.npy", draw_samples(manifest))
    parts = ", ".join(f"{n} {split}" for split, n in manifest["split"].value_counts().items())
    print(f"{len(manifest)} images of {manifest['patient'].nunique()} patients: {parts}")
    if source.patients is Patients.per_image:
        print("Each image counts as a patient of its own (patients: per_image).")
    print(f"{len(quarantine)} files set aside, lists in {exploration_dir(params.data_name)}")


def require_classes(labels: pd.Series, splits: pd.Series) -> None:
    """Raise a PneumoError unless both classes are in the training and the test set."""
    for split in ("train", "test"):
        found = set(labels[splits == split])
        missing = [name for name in CLASS_FOLDERS if name.lower() not in found]
        if missing:
            raise PneumoError(f"Expected readable images in {split}/{missing[0]}. Received: none")
