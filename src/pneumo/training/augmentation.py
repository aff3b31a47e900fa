"""A random view of each training image: one resampling, then changes of its grey values."""

import math
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from pneumo.base.pictures import encode_sheet
from pneumo.training.recipe import Augmentation, Recipe

SHARPNESS_WINDOW_PX = 5
WHITE = 255.0
N_VIEWS = 6  # of an image on a sheet
SHEET_IMAGE_PX = 96
SHEET_QUALITY = 60

Parameters = dict[str, Any]  # name -> tensor of shape (n,)


class RandomView(keras.Layer):
    """Varies images in training, each image anew in every batch, and leaves them alone in prediction.

    Every parameter is drawn on its own, from one uniform table a batch. The layer computes in float32 under
    every precision policy. From and to float images of shape (n, height, width, 1), values 0 to 255.

    Args:
        augmentation: ranges of the parameters. Those without a range cost nothing.
        seed: of the draws.
    """

    def __init__(self, augmentation: Augmentation, seed: int) -> None:
        super().__init__(dtype="float32")
        self._augmentation = augmentation
        self._seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Return one view of each image in training, else the images."""
        if not training:
            return images
        parameters = self.draw_parameters(ops.shape(images)[0])
        if self._augmentation.moves_pixels:
            images = warp(images, parameters)
        if self._augmentation.brightness_fraction or self._augmentation.contrast_fraction:
            images = change_contrast(images, parameters)
        if self._augmentation.gamma:
            images = change_gamma(images, parameters)
        if self._augmentation.sharpness:
            images = change_sharpness(images, parameters)
        if self._augmentation.noise_levels:
            noise = keras.random.normal(ops.shape(images), dtype="float32", seed=self._seed_generator)
            images = add_noise(images, parameters, noise)
        return images

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the input."""
        return input_shape

    def draw_parameters(self, n: Any) -> Parameters:
        """Draw the parameters of n views.

        Returns:
            Tensors of shape (n,): `flip` (-1 mirrored, 1 not), `angle` (radians), `area` (fraction of the
            image's), `aspect` (width to height, as a multiple of the image's), `place_y` and `place_x` (where
            the crop lies, from -0.5 at one border to 0.5 at the other), `shift_y` and `shift_x` (fractions of
            the side), `zoom_y` and `zoom_x` (factors), `brightness` (fraction of 255), `contrast` (factor),
            `gamma` (exponent), `sharpness` (below 0 blurred, above 0 sharpened) and `noise` (standard
            deviation in grey levels).
        """
        a = self._augmentation
        angle = math.radians(a.rotation_degrees)
        low, high = (math.log(ratio) for ratio in a.aspect_ratio)
        ranges = {
            "flip": (-1.0 if a.flip else 0.0, 1.0),
            "angle": (-angle, angle),
            "area": tuple(a.area_fraction),
            "aspect": (low, high),
            "place_y": (-0.5, 0.5),
            "place_x": (-0.5, 0.5),
            "shift_y": (-a.shift_fraction, a.shift_fraction),
            "shift_x": (-a.shift_fraction, a.shift_fraction),
            "zoom_y": (1 - a.zoom_fraction, 1 + a.zoom_fraction),
            "zoom_x": (1 - a.zoom_fraction, 1 + a.zoom_fraction),
            "brightness": (-a.brightness_fraction, a.brightness_fraction),
            "contrast": (1 - a.contrast_fraction, 1 + a.contrast_fraction),
            "gamma": (-a.gamma, a.gamma),
            "sharpness": (-a.sharpness, a.sharpness),
            "noise": (0.0, math.sqrt(a.noise_levels)),
        }
        drawn = keras.random.uniform((n, len(ranges)), dtype="float32", seed=self._seed_generator)
        parameters = {
            name: low + (high - low) * drawn[:, column]
            for column, (name, (low, high)) in enumerate(ranges.items())
        }
        parameters["flip"] = ops.where(parameters["flip"] < 0, -1.0, 1.0)
        parameters["aspect"] = ops.exp(parameters["aspect"])
        parameters["gamma"] = ops.exp(parameters["gamma"])
        parameters["noise"] = ops.square(parameters["noise"])
        return parameters


def warp(images: Any, parameters: Parameters) -> Any:
    """Cut a rotated, shifted, perhaps mirrored window out of each image and stretch it to the image's size.

    A crop's sides follow from its area and aspect ratio, but are no longer than the image's; zoom then
    multiplies them. Values between pixels are interpolated linearly; outside the image they are 0.

    Args:
        images: float tensor of shape (n, height, width, 1).
        parameters: as `RandomView.draw_parameters` returns them.
    """
    height, width = images.shape[1:3]
    p = parameters
    crop_y = ops.minimum(ops.sqrt(p["area"] / p["aspect"]), 1.0)
    crop_x = ops.minimum(ops.sqrt(p["area"] * p["aspect"]), 1.0)
    center_y = (height - 1) / 2 + height * (p["place_y"] * (1 - crop_y) + p["shift_y"])
    center_x = (width - 1) / 2 + width * (p["place_x"] * (1 - crop_x) + p["shift_x"])
    scale_y, scale_x = crop_y * p["zoom_y"], crop_x * p["zoom_x"] * p["flip"]
    cos, sin = ops.cos(p["angle"]), ops.sin(p["angle"])
    xx, xy = cos * scale_x, -sin * scale_y
    yx, yy = sin * scale_x, cos * scale_y
    # Where a pixel of the view lies in the image: x_in = xx x + xy y + x0, y_in = yx x + yy y + y0.
    x0 = center_x - xx * (width - 1) / 2 - xy * (height - 1) / 2
    y0 = center_y - yx * (width - 1) / 2 - yy * (height - 1) / 2
    zero = ops.zeros_like(xx)
    transforms = ops.stack([xx, xy, x0, yx, yy, y0, zero, zero], axis=1)
    return ops.image.affine_transform(
        images, transforms, interpolation="bilinear", fill_mode="constant", data_format="channels_last"
    )


def change_contrast(images: Any, parameters: Parameters) -> Any:
    """Multiply the contrast about each image's own mean, and shift all values; both stay in 0 to 255."""
    contrast, brightness = _per_image(parameters["contrast"]), _per_image(parameters["brightness"])
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    return ops.clip(images * contrast + (mean * (1 - contrast) + brightness * WHITE), 0.0, WHITE)


def change_gamma(images: Any, parameters: Parameters) -> Any:
    """Raise values, as fractions of 255, to a power."""
    # TensorFlow's power takes three times as long.
    return WHITE * ops.exp(ops.log(images / WHITE) * _per_image(parameters["gamma"]))


def change_sharpness(images: Any, parameters: Parameters) -> Any:
    """Add a multiple of what each pixel differs by from the mean of the 5 x 5 pixels about it.

    A multiple of -1 is that mean itself, 0 the image, above 0 a sharpened image. At the border the mean is of
    those pixels that exist. Values stay in 0 to 255.
    """
    means = ops.average_pool(
        images, SHARPNESS_WINDOW_PX, strides=1, padding="same", data_format="channels_last"
    )
    return ops.clip(images + _per_image(parameters["sharpness"]) * (images - means), 0.0, WHITE)


def add_noise(images: Any, parameters: Parameters, noise: Any) -> Any:
    """Add standard normal noise, multiplied by each image's own level; values stay in 0 to 255."""
    return ops.clip(images + _per_image(parameters["noise"]) * noise, 0.0, WHITE)


def draw_views(images: npt.NDArray[np.uint8], augmentation: Augmentation, seed: int) -> npt.NDArray[np.uint8]:
    """Return one random view of each image, as training sees it.

    Args:
        images: uint8 array of shape (n, height, width, 1).
        augmentation: how images are varied.
        seed: of the draws.

    Returns:
        uint8 array of the same shape, values rounded.
    """
    views = RandomView(augmentation, seed)(images.astype(np.float32), training=True)
    return np.rint(ops.convert_to_numpy(views)).astype(np.uint8)


def draw_sheet(images: npt.NDArray[np.uint8], recipe: Recipe, seed: int) -> bytes | None:
    """Draw images and random views of each side by side, to be looked at.

    Args:
        images: uint8 array of shape (n, height, width, 1).
        recipe: what is drawn is at its network's size, shrunk to at most SHEET_IMAGE_PX a side.
        seed: of the draws.

    Returns:
        A WebP file: a row an image, the image first and then N_VIEWS views; None where no phase of the
        recipe varies images.
    """
    if not any(phase.augment for phase in recipe.phases.values()):
        return None
    size_px = recipe.network.input_size_px
    sized = np.stack([_shrink(image, size_px) for image in images])
    views = draw_views(np.repeat(sized, N_VIEWS, axis=0)[..., None], recipe.augmentation, seed)
    of_image = views[..., 0].reshape(len(images), N_VIEWS, size_px, size_px)
    rows = np.concatenate([sized[:, None], of_image], axis=1)
    return encode_sheet(rows, SHEET_IMAGE_PX, SHEET_QUALITY)


def _shrink(image: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _per_image(values: Any) -> Any:
    return ops.reshape(values, (-1, 1, 1, 1))
