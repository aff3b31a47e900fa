"""Trained networks, opened so that their logits, feature maps and vectors can be had."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from pneumo.base.errors import PneumoError
from pneumo.base.layers import HEAD, PROBABILITY, UNFLIPPED

Images = npt.NDArray[np.uint8]
Extract = Callable[[Images], npt.NDArray[np.float32]]

MAX_CACHE_BYTES = 2**29


@dataclass(frozen=True)
class Scorer:
    """A classifier and its parts, which share their weights.

    Attributes:
        model: uint8 images of shape (n, size_px, size_px, 1) -> logits of shape (n, 1) or (n, n_classes).
        maps: the same images -> the last feature maps, of shape (n, height, width, n_maps); None where there
            are no convolutions.
        collapse: the layer that turns feature maps into vectors, by pooling or by flattening.
        rest: these vectors -> logits.
        averages_flips: the classifier's probability is the mean over an image and its mirror image.
        extract: a batch of the same images -> these vectors, remembered or computed; None where `model` is
            asked as a whole.
    """

    model: keras.Model
    maps: keras.Model | None
    collapse: keras.Layer
    rest: keras.Model
    averages_flips: bool
    extract: Extract | None = None


class FeatureCache:
    """The feature vectors of batches of images, kept for the next network with the same backbone.

    Vectors of one backbone are kept, n_features float32 an image, up to MAX_CACHE_BYTES.
    """

    def __init__(self) -> None:
        self._owner = (b"", b"")
        self._vectors: dict[bytes, npt.NDArray[np.float32]] = {}

    def attach(self, extractor: keras.Model, config: bytes) -> Extract:
        """Return a function that computes the vectors of a batch which is not here yet.

        Args:
            extractor: images -> vectors.
            config: of all its layers. Of another one, or with other weights, what was kept is dropped.
        """
        owner = (config, _digest(*extractor.get_weights()))
        if owner != self._owner:
            self._owner, self._vectors = owner, {}
        vectors = self._vectors

        def extract(batch: Images) -> npt.NDArray[np.float32]:
            key = _digest(batch)
            if key in vectors:
                return vectors[key]
            found = extractor.predict_on_batch(batch)
            if sum(each.nbytes for each in vectors.values()) + found.nbytes <= MAX_CACHE_BYTES:
                vectors[key] = found
            return found

        return extract


@dataclass(frozen=True)
class _Opened:
    config: bytes
    model: keras.Model
    scorer: Scorer
    extractor: keras.Model | None


class ScorerLoader:
    """Loads networks one after the other, and makes once what the seeds of a recipe have in common.

    They have the same layers: the network of the first seed takes the weights of the next, so that Keras need
    not build and trace it again. Where their backbone is frozen, they differ in their heads alone: a batch of
    images passes the backbone once for all of them.
    """

    def __init__(self) -> None:
        self._opened: _Opened | None = None
        self._cache = FeatureCache()

    def load(self, path: Path) -> Scorer:
        """Load a network that `train` saved.

        Args:
            path: of a model.keras.

        Returns:
            The network, until the next call: that one's weights may take the place of its own.

        Raises:
            PneumoError: there is no such file, or Keras cannot read it.
        """
        try:
            with zipfile.ZipFile(path) as file:
                config = file.read("config.json")
            opened = self._opened
            if opened is None or config != opened.config:
                opened = self._opened = _open(path, config)
            else:
                opened.model.load_weights(path)
        except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
            raise PneumoError(f"Expected a network that pneumo has trained. Received: {path}") from error
        if opened.extractor is None:
            return opened.scorer
        return replace(opened.scorer, extract=self._cache.attach(opened.extractor, config))


def open_classifier(model: keras.Model) -> Scorer:
    """Split a classifier of `networks.build_classifier` into its parts; it gives logits from then on."""
    averages_flips = any(layer.name == UNFLIPPED for layer in model.layers)
    model = model.get_layer(UNFLIPPED) if averages_flips else model
    owner = model.get_layer(HEAD) if _has_backbone(model) else model
    owner.get_layer(PROBABILITY).activation = keras.activations.linear
    collapse = find_collapse(model)
    has_maps = collapse.input.shape[-1] != model.input.shape[-1]
    return Scorer(
        keras.Model(model.input, model.output),
        keras.Model(model.input, collapse.input) if has_maps else None,
        collapse,
        keras.Model(collapse.output, model.output),
        averages_flips,
    )


def find_collapse(model: keras.Model) -> keras.Layer:
    """Return the layer that turns feature maps into vectors."""
    return next(
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.GlobalAveragePooling2D | keras.layers.Flatten)
    )


def shuffle_weights(scorer: Scorer, seed: int) -> Scorer:
    """Shuffle the values within each weight array: the same network without anything that it has learnt.

    Returns:
        The network, without vectors of before. The one passed in shares its weights: do not use it any more.
    """
    generator = np.random.default_rng(seed)
    arrays = scorer.model.get_weights()
    scorer.model.set_weights([generator.permutation(each.ravel()).reshape(each.shape) for each in arrays])
    return replace(scorer, extract=None)


def _open(path: Path, config: bytes) -> _Opened:
    model = keras.models.load_model(path, compile=False)
    scorer = open_classifier(model)
    extractor = None
    if _has_backbone(scorer.model) and not isinstance(scorer.collapse, keras.layers.Flatten):
        extractor = keras.Model(scorer.model.input, scorer.collapse.output)
    return _Opened(config, model, scorer, extractor)


def _has_backbone(model: keras.Model) -> bool:
    return any(layer.name == HEAD for layer in model.layers)


def _digest(*arrays: npt.NDArray[Any]) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
