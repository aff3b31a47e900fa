"""What a run learns from."""

import hashlib
from types import SimpleNamespace

import numpy as np

from pneumo.training import dataset


def test_images_are_hashed_once_for_all_folds(tmp_path, monkeypatch):
    path = tmp_path / "images.npy"
    np.save(path, np.arange(60, dtype=np.uint8).reshape(15, 2, 2, 1))
    hashed, asked = [], []

    def hash_file(each):
        hashed.append(each)
        return hashlib.sha256(each.read_bytes()).hexdigest()

    monkeypatch.setattr(dataset, "hash_file", hash_file)
    monkeypatch.setattr(dataset, "load_or_extract_features", lambda *arguments: asked.append(arguments))
    file = dataset.ImagesFile(path)
    for fold in ("first", "second"):
        part = dataset.Dataset(None, file, None, None, None, None)
        part.load_features(SimpleNamespace(extractor=fold))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.sha256 == expected
    assert [call[:3] for call in asked] == [("first", path, expected), ("second", path, expected)]
    assert hashed == [path]
