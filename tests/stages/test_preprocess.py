import shutil

import numpy as np
import pandas as pd
import pytest

from pneumo.base.config import load_params
from pneumo.data.decoding import decode_image
from pneumo.preprocessing.combo import apply_steps, parse_combo
from pneumo.stages import preprocess
from workspace import edit_params, find_partials


def test_preprocess_writes_row_i_from_image_i(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    params = load_params()
    manifest = pd.read_csv(workspace / "data/phantom/manifest.csv")
    assert len(manifest) == 64
    for combo, steps in params.combos.items():
        images = np.load(workspace / f"data/phantom/{combo}/images.npy")
        assert images.dtype == np.uint8
        assert images.shape == (64, 32, 32, 1)
        parsed = parse_combo(combo, steps, params.image_size_px)
        for i in (0, 31, 63):
            pixels = decode_image((workspace / manifest["path"][i]).read_bytes()).pixels
            np.testing.assert_array_equal(images[i, :, :, 0], apply_steps(pixels, parsed))


def test_preprocess_keeps_the_old_images_where_a_file_is_gone(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    images = workspace / "data/phantom/raw/images.npy"
    old = images.read_bytes()
    manifest = pd.read_csv(workspace / "data/phantom/manifest.csv")
    (workspace / manifest["path"].iloc[-1]).unlink()
    with pytest.raises(FileNotFoundError):
        preprocess.run(load_params(), "raw")
    assert images.read_bytes() == old
    assert find_partials(workspace) == []


def test_preprocess_says_when_a_clip_limit_has_no_effect(workspace, phantom_data, capsys):
    shutil.copytree(phantom_data, workspace / "data")
    edit_params(workspace, "{clip_limit: 2.0, tiles: 4}", "{clip_limit: 2.0, tiles: 8}")
    preprocess.run(load_params(), "clahe")
    assert "warning: combos.clahe" in capsys.readouterr().out
    preprocess.run(load_params(), "raw")
    assert "warning" not in capsys.readouterr().out
