"""What a run learns from."""

import hashlib
from types import SimpleNamespace

import numpy as np

from pneumo.training import dataset


def test_images_are_hashed_once_for_features_asked_for_many_times(tmp_path, monkeypatch):
    path = tmp_path / "images.npy"
    np.save(path, np.arange(60, dtype=np.uint8).reshape(15, 2, 2, 1))
    hashed, asked = [], []

    def hash_file(each):
        hashed.append(each)
        return hashlib.sha256(each.read_bytes()).hexdigest()

    monkeypatch.setattr(dataset, "hash_file", hash_file)
    monkeypatch.setattr(dataset, "load_or_extract_features", lambda *arguments: asked.append(arguments))
    data = dataset.Dataset(None, path, None, None, None, None)
    for network in ("first", "second"):
        data.load_features(SimpleNamespace(extractor=network))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.images_sha256 == expected
    assert [call[:3] for call in asked] == [("first", path, expected), ("second", path, expected)]
    assert hashed == [path]
