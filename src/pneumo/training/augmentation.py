"""How training images are varied at random."""

from typing import Any

import keras

from pneumo.training.recipe import Augmentation


def build_augmentation(augmentation: Augmentation, seed: int) -> list[keras.Layer]:
    """Build the layers that vary images in training and leave them alone in prediction.

    Args:
        augmentation: what is 0 or false adds no layer.
        seed: of the random draws.

    Returns:
        Layers, each from and to float images of shape (n, height, width, 1), values 0 to 255.
    """
    a = augmentation
    layers = keras.layers
    fill: dict[str, Any] = {"fill_mode": "constant", "seed": seed}
    built = []
    if a.flip:
        built.append(layers.RandomFlip("horizontal", seed=seed))
    if a.rotation_degrees:
        built.append(layers.RandomRotation(a.rotation_degrees / 360, **fill))
    if a.shift_fraction:
        built.append(layers.RandomTranslation(a.shift_fraction, a.shift_fraction, **fill))
    if a.zoom_fraction:
        built.append(layers.RandomZoom(a.zoom_fraction, a.zoom_fraction, **fill))
    if a.brightness_fraction:
        built.append(layers.RandomBrightness(a.brightness_fraction, seed=seed))
    if a.contrast_fraction:
        built.append(layers.RandomContrast(a.contrast_fraction, seed=seed))
    if a.blur_px:
        always = (1.0, 1.0)
        sigma = (0.0, a.blur_px)
        built.append(layers.RandomGaussianBlur(always, kernel_size=5, sigma=sigma, seed=seed))
    return built
