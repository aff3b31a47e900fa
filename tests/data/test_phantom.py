import dataclasses
import functools
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from pneumo.base.errors import PneumoError
from pneumo.base.labels import Subtype
from pneumo.data.phantom import CANVAS_PX, add_pneumonia, draw_thorax, take_radiograph
from pneumo.data.sources import phantom

PNEUMONIA_NAME = re.compile(r"^(person\d+_(?:bacteria|virus))_\d+")
NORMAL_NAME = re.compile(r"^((?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?")
SMALL = phantom.Settings(n_train=64, n_val=6, n_test=50)


def fetch(settings: phantom.Settings, target: Path) -> dict[str, bytes]:
    target.mkdir()
    phantom.fetch(settings, target)
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*.*"))}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return fetch(SMALL, tmp_path_factory.mktemp("phantom") / "raw")


def decode(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def parse_patient(path: str) -> str:
    _, label, name = path.split("/")
    match = (NORMAL_NAME if label == "NORMAL" else PNEUMONIA_NAME).match(name)
    assert match
    assert match.group(0) + ".jpeg" == name
    return match.group(1)


def differ_beyond_chance(values: np.ndarray, is_pneumonia: np.ndarray) -> bool:
    """Whether two class means lie more than three standard errors apart."""
    a, b = values[is_pneumonia], values[~is_pneumonia]
    return bool(abs(a.mean() - b.mean()) > 3 * np.sqrt(a.var() / len(a) + b.var() / len(b)))


def test_layout_counts_and_names(files):
    counts = Counter(tuple(path.split("/")[:2]) for path in files)
    assert counts == {
        ("train", "NORMAL"): 26,
        ("train", "PNEUMONIA"): 38,
        ("val", "NORMAL"): 2,
        ("val", "PNEUMONIA"): 4,
        ("test", "NORMAL"): 20,
        ("test", "PNEUMONIA"): 30,
    }
    names = [path.split("/")[2] for path in files]
    assert sum("_bacteria_" in name for name in names) == 23 + 2 + 18
    assert any(name.startswith("NORMAL2-IM-") for name in names)
    assert any(name.startswith("IM-") for name in names)
    numbers = [name.removesuffix(".jpeg").rpartition("_")[2] for name in names if name.startswith("person")]
    assert sorted(map(int, numbers)) == list(range(1, 73))


def test_a_patient_has_one_split_and_one_class_and_some_have_several_images(files):
    places = defaultdict(list)
    for path in files:
        places[parse_patient(path)].append(tuple(path.split("/")[:2]))
    assert all(len(set(folders)) == 1 for folders in places.values())
    assert {1, 2, 3} == {len(folders) for folders in places.values()}


def test_patient_numbers_are_not_shared_between_classes(files):
    numbers = {
        patient: re.search(r"(?:IM-|person)(\d+)", patient).group(1) for patient in map(parse_patient, files)
    }
    assert len({int(number) for number in numbers.values()}) == len(numbers)


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path, monkeypatch):
    settings = phantom.Settings(n_train=8, n_val=2, n_test=2)
    first = fetch(settings, tmp_path / "first")
    monkeypatch.setattr(phantom, "ThreadPoolExecutor", functools.partial(ThreadPoolExecutor, max_workers=1))
    assert fetch(settings, tmp_path / "second") == first


def test_seed_changes_every_image(tmp_path, files):
    settings = phantom.Settings(seed=1, n_train=8, n_val=2, n_test=2)
    assert not set(fetch(settings, tmp_path / "other").values()) & set(files.values())


def test_images_are_grey_and_use_their_range(files):
    for content in files.values():
        image = decode(content)
        assert image.dtype == np.uint8
        assert image.ndim == 2
        height, width = image.shape
        assert 240 <= height <= 272
        assert height <= width <= 1.45 * height + 1
        assert image.std() > 15
    assert len(set(files.values())) == len(files)


@pytest.mark.parametrize("subtype", [Subtype.BACTERIAL, Subtype.VIRAL])
@pytest.mark.parametrize("seed", range(4))
def test_disease_changes_the_lungs_and_nothing_else(subtype, seed):
    thorax = draw_thorax(np.random.default_rng(seed))
    diseased = add_pneumonia(thorax, subtype, np.random.default_rng(seed))
    assert diseased.dtype == np.float32
    assert diseased.shape == (CANVAS_PX, CANVAS_PX)
    change = diseased - thorax.attenuation
    lungs = thorax.lungs > 0
    assert np.abs(change[lungs]).max() > 0.05
    assert change[lungs].mean() > 0
    assert not change[~lungs].any()


def test_bacterial_disease_is_on_one_side_and_viral_on_both():
    thorax = draw_thorax(np.random.default_rng(0))
    midline = CANVAS_PX // 2
    for seed in range(8):
        for subtype, n_sides in ((Subtype.BACTERIAL, 1), (Subtype.VIRAL, 2)):
            diseased = add_pneumonia(thorax, subtype, np.random.default_rng(seed))
            change = diseased - thorax.attenuation
            sides = [change[:, :midline], change[:, midline + 1 :]]
            assert sum(side.max() > 0.03 for side in sides) == n_sides


def test_a_normal_subtype_is_refused():
    with pytest.raises(ValueError, match="Received: normal"):
        add_pneumonia(draw_thorax(np.random.default_rng(0)), Subtype.NORMAL, np.random.default_rng(0))


@pytest.mark.parametrize("subtype", [Subtype.BACTERIAL, Subtype.VIRAL])
def test_the_view_of_a_patient_does_not_depend_on_the_disease(subtype):
    for seed in range(6):
        thorax = draw_thorax(np.random.default_rng(seed))
        diseased = add_pneumonia(thorax, subtype, np.random.default_rng(seed))
        healthy_view, diseased_view = (
            take_radiograph(attenuation, np.random.default_rng(seed))
            for attenuation in (thorax.attenuation, diseased)
        )
        assert healthy_view.shape == diseased_view.shape
        # Only the lungs differ, and they do not reach the top and bottom of the view.
        changed = healthy_view != diseased_view
        assert 0.005 < changed.mean() < 0.6
        assert not changed[0].any()
        assert not changed[-1].any()


def test_equalisation_undoes_most_of_what_exposure_changes():
    raw, equalized = [], []
    thorax = draw_thorax(np.random.default_rng(0))
    for seed in range(30):
        view = take_radiograph(thorax.attenuation, np.random.default_rng(seed))
        centre = cv2.resize(view, (64, 64), interpolation=cv2.INTER_AREA)[16:48, 16:48]
        raw.append(centre)
        equalized.append(cv2.equalizeHist(centre))
    spread, rest = (np.std(np.array(views, float), axis=0).mean() for views in (raw, equalized))
    # Equalisation also stretches contrast, and with it what framing changes.
    contrast, stretched = (np.mean([view.std() for view in views]) for views in (raw, equalized))
    assert spread / contrast > 1.5 * rest / stretched
    assert max(view.mean() for view in raw) > 3 * min(view.mean() for view in raw)


def test_metadata_and_borders_do_not_tell_the_label(files):
    is_pneumonia = np.array(["PNEUMONIA" in path for path in files])
    images = [decode(content) for content in files.values()]
    measures = {
        "width": [image.shape[1] for image in images],
        "height": [image.shape[0] for image in images],
        "aspect": [image.shape[1] / image.shape[0] for image in images],
        "top": [image[:8].mean() for image in images],
        "bottom": [image[-8:].mean() for image in images],
        "left": [image[:, :8].mean() for image in images],
        "right": [image[:, -8:].mean() for image in images],
        "brightest": [np.percentile(image, 99) for image in images],
        "bytes": [len(content) for content in files.values()],
    }
    telling = [
        name for name, values in measures.items() if differ_beyond_chance(np.array(values), is_pneumonia)
    ]
    assert telling == []


def test_the_check_for_telling_measures_fires():
    is_pneumonia = np.arange(100) % 2 == 0
    values = np.random.default_rng(0).normal(size=100)
    assert not differ_beyond_chance(values, is_pneumonia)
    assert differ_beyond_chance(values + is_pneumonia, is_pneumonia)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"seed": -1}, "seed"),
        ({"pneumonia_fraction": 0.0}, "pneumonia_fraction"),
        ({"pneumonia_fraction": 1.0}, "pneumonia_fraction"),
        ({"bacterial_fraction": 1.1}, "bacterial_fraction"),
        ({"bacterial_fraction": float("nan")}, "bacterial_fraction"),
        ({"n_val": 0}, "n_val"),
        ({"n_test": -3}, "n_test"),
        ({"n_train": 2, "pneumonia_fraction": 0.1}, "n_train"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(PneumoError, match=rf"Expected .*{message}|Received: {message}"):
        phantom.Settings(**bad)


def test_the_config_file_holds_the_defaults():
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "data" / "phantom.yaml")
    assert config.pop("kind") == "phantom"
    settings = dataclasses.asdict(phantom.Settings())
    assert {name: config[name] for name in settings} == settings
