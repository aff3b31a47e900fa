import shutil
import zipfile
from pathlib import Path

import pytest

from hostile import good_files, jpeg
from import_graph import ROOT
from pneumo.base.config import load_params
from pneumo.base.errors import PneumoError
from pneumo.base.paths import exploration_dir, images_path, manifest_path, raw_dir
from pneumo.stages import check
from pneumo.training.recipe import BACKBONES

PARAMS = """\
experiment: small
data: {source: phantom, name: phantom, n_train: 40, n_test: 184}
split: {val_fraction: 0.2, seed: 0}
image_size_px: 64
task: binary
combos:
  raw: []
  trim_clahe: [trim, {clahe: {tiles: 4}}]
models:
  dense: {}
  mobilenet_frozen: {}
seeds: [0, 1, 2]
threshold: {method: youden}
prevalence: 0.2
ensembles: {}
equivalence_margin: 0.01
weights_dir: weights
external: {}
"""
PHANTOM = "{source: phantom, name: phantom, n_train: 40, n_test: 184}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace_params(old, new):
    path = Path("params.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def write_files(folder, files):
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def use_local(files, settings=""):
    write_files("xrays", files)
    replace_params(PHANTOM, f"{{source: local, name: local, path: xrays{settings}}}")


def run_check(capsys):
    check.run(load_params())
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def expect_error(capsys, *parts):
    """Expect one plain line, and nothing printed before it."""
    with pytest.raises(PneumoError) as error:
        check.run(load_params())
    message = str(error.value)
    assert "\n" not in message
    assert capsys.readouterr().out == ""
    for part in parts:
        assert part in message


def test_check_says_what_would_run(capsys):
    assert run_check(capsys) == [
        "data: Synthetic chest phantoms, 240 images of 141 patients",
        "data: train: 16 normal, 24 pneumonia",
        "data: val: 6 normal, 10 pneumonia",
        "data: test: 74 normal, 110 pneumonia",
        "combo raw: resize",
        "combo trim_clahe: trim -> resize -> clahe",
        "model dense: dense, random weights",
        "model mobilenet_frozen: mobilenet075, ImageNet weights that Keras downloads",
        "training uses the CPU: no NVIDIA driver was found",
        "12 runs, report in reports/small/",
    ]


def test_check_writes_nothing_but_that_it_was_done(folder, capsys):
    use_local(good_files())
    before = set(folder.rglob("*"))
    run_check(capsys)
    assert set(folder.rglob("*")) - before == {folder / "data", folder / "data/.checked"}
    assert (folder / "data/.checked").read_text() == "checked\n"


# Data


def test_a_path_that_does_not_exist(capsys):
    replace_params(PHANTOM, "{source: local, name: local, path: nowhere}")
    expect_error(capsys, "Expected data.path to exist. Received: nowhere.")


def test_a_folder_without_images(capsys, folder):
    (folder / "empty").mkdir()
    replace_params(PHANTOM, "{source: local, name: local, path: empty}")
    expect_error(capsys, "Expected one folder with train/ and test/", "empty")


@pytest.mark.parametrize("archive", [False, True])
def test_a_local_source_is_counted(capsys, archive):
    use_local(good_files() | {"train/NORMAL/notes.txt": b"x", "train/COVID/a.jpeg": b"x"})
    if archive:
        with zipfile.ZipFile("xrays.zip", "w") as target:
            for path in sorted(Path("xrays").rglob("*.*")):
                target.write(path)
        replace_params("path: xrays", "path: xrays.zip")
    assert run_check(capsys)[:5] == [
        "data: Chest X-rays from a local folder, 69 images of 51 patients",
        "data: train: 13 normal, 26 pneumonia",
        "data: val: 3 normal, 6 pneumonia",
        "data: test: 7 normal, 14 pneumonia",
        "data: 2 other files",
    ]


def test_images_are_not_decoded(capsys):
    use_local(dict.fromkeys(good_files(), b""))
    assert "data: train: 13 normal, 26 pneumonia" in run_check(capsys)


def test_names_that_are_not_understood(capsys):
    use_local(good_files() | {"train/NORMAL/scan_1.jpeg": jpeg(1)})
    expect_error(capsys, "Received: 1 of 70 names", "train/NORMAL/scan_1.jpeg", "patients: per_image")


def test_a_patient_per_image(capsys):
    folders = [f"{split}/{name}" for split in ("train", "test") for name in ("NORMAL", "PNEUMONIA")]
    use_local(
        {f"{folder}/scan_{i}.jpeg": b"" for folder in folders for i in range(9)}, ", patients: per_image"
    )
    counted = "images, each counted as a patient of its own (patients: per_image)"
    assert run_check(capsys)[0] == f"data: Chest X-rays from a local folder, 36 {counted}"
    write_files("xrays", {"train/NORMAL/IM-0001-0001.jpeg": b""})
    expected = f"data: Chest X-rays from a local folder, 37 {counted}; the patients of 1 are in their names"
    assert run_check(capsys)[0] == expected


@pytest.mark.parametrize("place", ["train/PNEUMONIA", "test/NORMAL"])
def test_a_class_without_images(capsys, place):
    files = {name: content for name, content in good_files().items() if not name.startswith(place)}
    use_local(files | {f"{place}/notes.txt": b"x"})
    expect_error(capsys, f"data: Expected images in {place}. Received: none")


def test_patients_on_both_sides_of_the_test_set(capsys):
    moved = {
        name.replace("test/", "train/").replace("01.jpeg", "09.jpeg"): content
        for name, content in good_files().items()
        if name.startswith("test/NORMAL")
    }
    use_local(good_files() | moved)
    n_moved = len(moved.keys() - good_files().keys())
    line = f"warning: {n_moved} training images are of patients of the test set and will not be used"
    assert n_moved == 7
    assert line in run_check(capsys)


def test_too_few_patients_for_validation(capsys):
    use_local({name: b"" for name in good_files() if not name.startswith("train/NORMAL/IM-000")})
    replace_params("val_fraction: 0.2", "val_fraction: 0.01")
    expect_error(capsys, "Expected enough normal patients", "val_fraction")


def test_kaggle_is_not_asked(capsys):
    replace_params(PHANTOM, "{source: kaggle, name: kaggle}")
    assert run_check(capsys)[0] == "data: Kermany 2018 chest X-rays (Kaggle), to be downloaded"


# Names that other outputs have


@pytest.mark.parametrize("name", check.TAKEN_COMBOS)
def test_combos_must_not_take_the_place_of_other_outputs(capsys, name):
    replace_params("raw: []", f"{name}: []")
    expect_error(capsys, "combos: Expected a name that no other output has", f"Received: {name}.")


def test_data_sets_must_not_take_the_place_of_other_outputs(capsys):
    replace_params("name: phantom", "name: raw")
    expect_error(capsys, "data.name: Expected a name that no other output has", "Received: raw.")


def test_taken_names_are_those_of_the_paths():
    beside_combos = (exploration_dir("x"), manifest_path("x"))
    assert images_path("x", "combo").parents[1] == beside_combos[0].parent == beside_combos[1].parent
    assert {path.stem for path in beside_combos} | {"audit"} == set(check.TAKEN_COMBOS)
    assert raw_dir("x").parent.name in check.TAKEN_DATA


# Combos


def test_limits_without_effect_and_equal_combos_are_warned_of(capsys):
    replace_params("raw: []", "raw: []\n  plain: {}\n  clahe: [clahe]\n  other: [{clahe: {clip_limit: 3.0}}]")
    lines = run_check(capsys)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert [line.split(":")[1] for line in warnings[:2]] == [" combos.clahe", " combos.other"]
    assert "clip_limit of 3 has no effect" in warnings[1]
    assert warnings[2:] == [
        "warning: the combos raw, plain give the same images",
        "warning: the combos clahe, other give the same images",
    ]


def test_the_demo_is_without_warnings(capsys):
    shutil.copyfile(ROOT / "conf/experiment/demo.yaml", "params.yaml")
    assert not [line for line in run_check(capsys) if line.startswith("warning")]


# Weights


def test_weights_are_looked_for(capsys, folder):
    assert "model mobilenet_frozen: mobilenet075, ImageNet weights that Keras downloads" in run_check(capsys)
    (folder / "weights").mkdir()
    for name in BACKBONES:
        (folder / "weights" / f"{name}_imagenet_notop.weights.h5").touch()
    expected = "model mobilenet_frozen: mobilenet075, weights/mobilenet075_imagenet_notop.weights.h5"
    assert expected in run_check(capsys)


# External test sets


def test_external_sets_need_a_folder_with_both_classes(capsys):
    replace_params("external: {}", "external: {elsewhere: hospital}")
    expect_error(capsys, "external.elsewhere: Expected a folder. Received: hospital")
    write_files("hospital", {"a/normal/1.png": b"", "a/normal/notes.txt": b"", "b.png": b""})
    expect_error(capsys, "external.elsewhere: Expected images in hospital/**/PNEUMONIA. Received: none")
    write_files("hospital", {"PNEUMONIA/person1_virus_1.png": b"", "PNEUMONIA/person1_virus_2.png": b""})
    expected = (
        "external test set elsewhere: 1 normal, 2 pneumonia, in hospital; the patients of 1 are not known"
    )
    assert expected in run_check(capsys)


# conf/ and params.yaml


@pytest.mark.parametrize(("group", "name"), [("model", "dense"), ("data", "phantom")])
def test_missing_files_of_conf_are_named(capsys, group, name):
    Path("conf", group, f"{name}.yaml").unlink()
    expect_error(capsys, f"Expected one of the files in conf/{group}/: ", f"Received: {name}")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("source: phantom", "source: photos", ["conf/data/", "kaggle", "photos"]),
        ("n_train: 40", "n_trian: 40", ["n_trian"]),
        ("n_train: 40", "n_train: many", ["n_train", "many"]),
        ("n_train: 40", "n_train: 40, patients: known", ["patients", "known", "per_image"]),
        ("tiles: 4", "tile: 4", ["combos.trim_clahe[1].clahe", "'tile'"]),
        ("[trim,", "[trimm,", ["combos.trim_clahe[0]", "'trimm'"]),
        ("[trim,", "[{resize: {size_px: 32}},", ["combos.trim_clahe[0].resize.size_px", "image_size_px, 64"]),
        ("raw: []", "raw:", ["combos.raw", "None"]),
        ("dense: {}", "dens: {}", ["conf/model/", "dens"]),
        ("dense: {}", "dense: {batch: 3}", ["batch"]),
        ("dense: {}", "dense: {batch_size: 0}", ["dense", "batch_size"]),
    ],
)
def test_check_names_what_is_wrong(capsys, old, new, parts):
    replace_params(old, new)
    expect_error(capsys, *parts)


@pytest.mark.parametrize(
    ("device", "said"),
    [("gpu:0", "training uses gpu:0"), ("cpu:0", "warning: training uses the CPU, though an NVIDIA driver")],
)
def test_the_device_is_said_where_there_is_a_driver(tmp_path, monkeypatch, device, said):
    assert check.describe_device() == "training uses the CPU: no NVIDIA driver was found"
    monkeypatch.setattr(check, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr("pneumo.training.devices.find_device", lambda: device)
    assert check.describe_device().startswith(said)
