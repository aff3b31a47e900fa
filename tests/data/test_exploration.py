import numpy as np
import pandas as pd
import pytest

from hostile import draw_image, encode
from pneumo.base.labels import Subtype
from pneumo.data.exploration import N_SAMPLES, SAMPLE_SIZE_PX, draw_samples, list_train_subtypes
from pneumo.preprocessing.steps import resize


def write_manifest(folder, counts, split="train", shape=(40, 60)):
    rows = []
    for subtype, n in counts.items():
        for i in range(n):
            path = folder / f"{split}_{subtype}_{i}.png"
            path.write_bytes(encode(draw_image(len(rows), *shape), "PNG"))
            # The hashes run against the order of the rows.
            rows.append((str(path), split, str(subtype), f"{1000 - len(rows):064d}"))
    return pd.DataFrame(rows, columns=["path", "split", "subtype", "sha256"])


def test_samples_are_the_first_by_hash_of_each_subtype(tmp_path):
    manifest = write_manifest(tmp_path, {"viral": 12, "normal": N_SAMPLES + 1, "bacterial": 9})
    samples = draw_samples(manifest)
    subtypes = list_train_subtypes(manifest)
    assert subtypes == [Subtype.NORMAL, Subtype.BACTERIAL, Subtype.VIRAL]
    assert samples.shape == (3, N_SAMPLES, SAMPLE_SIZE_PX, SAMPLE_SIZE_PX)
    assert samples.dtype == np.uint8
    # Images are numbered by row: viral 0 to 11, normal 12 to 20, bacterial 21 to 29.
    last = {"viral": 11, "normal": 20, "bacterial": 29}
    for row, subtype in enumerate(subtypes):
        for column in range(N_SAMPLES):
            image = draw_image(last[subtype] - column, 40, 60)
            expected = resize(image, size_px=SAMPLE_SIZE_PX, mode="letterbox")
            np.testing.assert_array_equal(samples[row, column], expected)


def test_only_training_images_are_drawn(tmp_path):
    train = write_manifest(tmp_path, {"normal": 2})
    others = [write_manifest(tmp_path, {"normal": 3, "viral": 3}, split) for split in ("val", "test")]
    manifest = pd.concat([*others, train], ignore_index=True)
    np.testing.assert_array_equal(draw_samples(manifest), draw_samples(train))
    assert list_train_subtypes(manifest) == [Subtype.NORMAL]


def test_too_few_images_leave_black_pictures(tmp_path):
    samples = draw_samples(write_manifest(tmp_path, {"normal": 3, "unknown": 1}))
    assert samples.any(axis=(2, 3)).tolist() == [[True] * 3 + [False] * 5, [True] + [False] * 7]


@pytest.mark.parametrize("shape", [(1000, 3), (1, 2000), (1, 1), (160, 160), (500, 400), (31, 57)])
def test_any_shape_is_shown(tmp_path, shape):
    [[picture, *_]] = draw_samples(write_manifest(tmp_path, {"normal": 1}, shape=shape))
    expected = resize(draw_image(0, *shape), size_px=SAMPLE_SIZE_PX, mode="letterbox")
    np.testing.assert_array_equal(picture, expected)
    assert picture.any()


def test_the_order_of_rows_does_not_matter(tmp_path):
    manifest = write_manifest(tmp_path, {"normal": 10, "viral": 10})
    shuffled = manifest.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(draw_samples(shuffled), draw_samples(manifest))


def test_no_training_image_gives_no_row(tmp_path):
    assert draw_samples(write_manifest(tmp_path, {"normal": 1}, "test")).shape[0] == 0
