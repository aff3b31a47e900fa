import numpy as np
import pandas as pd
import pytest

from hostile import draw_image, encode
from pneumo.data.decoding import UnreadableImageError
from pneumo.preprocessing.arrays import (
    N_IN_FLIGHT,
    N_SAMPLES,
    SAMPLE_SIZE_PX,
    draw_samples,
    find_identical_images,
    write_images,
)
from pneumo.preprocessing.combo import apply_steps, parse_combo

SIZE_PX = 32


@pytest.fixture
def paths(tmp_path):
    """Write some images of different shapes, named so that their order is not that of their numbers."""
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        path.write_bytes(encode(draw_image(i, 40 + i, 60 - i), "PNG"))
    return [str(path) for path in reversed(paths)]


def test_rows_are_those_of_the_paths(paths, tmp_path):
    steps = parse_combo("x", ["trim", "equalize"], SIZE_PX)
    many = paths * (N_IN_FLIGHT // len(paths) + 2)
    write_images(many, steps, tmp_path / "images.npy")
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert images.shape == (len(many), SIZE_PX, SIZE_PX, 1)
    assert images.dtype == np.uint8
    for row in (0, 1, 11, 12, N_IN_FLIGHT, len(many) - 1):
        number = 11 - row % 12
        expected = apply_steps(draw_image(number, 40 + number, 60 - number), steps)
        np.testing.assert_array_equal(images[row, :, :, 0], expected)


@pytest.mark.parametrize(
    ("arguments", "expected"), [((), "preprocess:"), (("preprocess clahe",), "preprocess clahe:")]
)
def test_the_progress_bar_has_a_name(paths, tmp_path, capsys, arguments, expected):
    write_images(paths, parse_combo("x", [], SIZE_PX), tmp_path / "images.npy", *arguments)
    bar = capsys.readouterr().err
    assert bar.strip().startswith(expected)
    assert tmp_path.name not in bar


def test_a_damaged_file_leaves_no_array(paths, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError):
        write_images(paths, parse_combo("x", [], SIZE_PX), tmp_path / "new" / "images.npy")
    assert list((tmp_path / "new").iterdir()) == []


def test_identical_images_are_found(paths, tmp_path):
    combos = {
        "raw": [],
        "clahe": [{"clahe": {"clip_limit": 2.0}}],
        "inverted": ["invert"],
        "other_limit": [{"clahe": {"clip_limit": 5.0}}],
        "twice_inverted": ["invert", "invert"],
    }
    for name, steps in combos.items():
        write_images(paths, parse_combo(name, steps, SIZE_PX), tmp_path / name / "images.npy")
    found = find_identical_images({name: tmp_path / name / "images.npy" for name in combos})
    assert found == [["raw", "twice_inverted"], ["clahe", "other_limit"]]
    del combos["twice_inverted"], combos["other_limit"]
    assert find_identical_images({name: tmp_path / name / "images.npy" for name in combos}) == []


def test_samples_are_training_images_of_each_subtype_by_hash():
    manifest = pd.DataFrame(
        [
            ("train", "viral", "c"),
            ("train", "normal", "z"),
            ("test", "normal", "a"),
            ("train", "normal", "b"),
            ("val", "viral", "a"),
            ("train", "normal", "y"),
        ],
        columns=["split", "subtype", "sha256"],
        index=[5, 4, 3, 2, 1, 0],  # rows count, not labels
    )
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(3, 1).repeat(3, 2)
    samples = draw_samples(images, manifest)
    assert (samples.dtype, samples.shape) == (np.uint8, (2, N_SAMPLES, 3, 3))
    assert samples[..., 0, 0].tolist() == [[3, 5], [0, 0]]
    assert (samples == samples[..., :1, :1]).all()


def test_samples_of_large_images_are_small():
    manifest = pd.DataFrame([("train", "normal", "a")], columns=["split", "subtype", "sha256"])
    images = np.zeros((1, 2 * SAMPLE_SIZE_PX, 2 * SAMPLE_SIZE_PX, 1), np.uint8)
    images[0, :SAMPLE_SIZE_PX] = 100
    (row,) = draw_samples(images, manifest)
    assert row.shape == (N_SAMPLES, SAMPLE_SIZE_PX, SAMPLE_SIZE_PX)
    assert (row[0, : SAMPLE_SIZE_PX // 2] == 100).all()
    assert not row[0, SAMPLE_SIZE_PX // 2 :].any()
