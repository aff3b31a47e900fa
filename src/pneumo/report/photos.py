"""Photographs of the page: arrays in, WebP in a data address out. The same array gives the same bytes."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from pneumo.base.labels import Subtype
from pneumo.base.tables import find_training_images

SIZE_PX = 144  # of a photograph on the page, at most
_QUALITY = 62
_HEAT = colormaps["inferno"]
_HEAT_SHARE = 0.65  # of an overlay's strongest place


@dataclass(frozen=True)
class Photo:
    """One picture.

    Attributes:
        address: a data address.
        alt: what it shows, for readers who do not see it.
    """

    address: str
    alt: str


@dataclass(frozen=True)
class PhotoRow:
    """Pictures side by side under one heading.

    Attributes:
        heading: what they have in common.
        text: a sentence more; may be empty.
        photos: the pictures.
    """

    heading: str
    text: str
    photos: list[Photo]


@dataclass(frozen=True)
class Views:
    """What a run's training sees.

    Attributes:
        run: its name.
        photo: a row a training image, the image first and random views of it after it.
    """

    run: str
    photo: Photo


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery.

    Attributes:
        group: why it is shown, e.g. `certain and wrong`.
        caption: class and decision.
        plain: the image.
        maps: name -> the image under a map of what spoke for the decision.
    """

    group: str
    caption: str
    plain: Photo
    maps: dict[str, Photo]


@dataclass(frozen=True)
class Gallery:
    """Images of the test set on which a run decides in an instructive way.

    Attributes:
        run: its name.
        images: in the order in which they are shown.
    """

    run: str
    images: list[GalleryImage]

    @property
    def groups(self) -> dict[str, list[GalleryImage]]:
        """The images by group, in their order."""
        groups: dict[str, list[GalleryImage]] = {}
        for image in self.images:
            groups.setdefault(image.group, []).append(image)
        return groups


def encode_photo(pixels: npt.NDArray[np.uint8], size_px: int = SIZE_PX) -> str:
    """Encode an image as WebP in a data address, shrunk to at most size_px on its longer side.

    Args:
        pixels: uint8 array of shape (height, width) or (height, width, 3).
        size_px: the greatest side.
    """
    image = Image.fromarray(pixels)
    scale = size_px / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=_QUALITY, method=6)
    return _address(content.getvalue())


def overlay_map(pixels: npt.NDArray[np.uint8], attention: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay a map over an image, brighter where it is stronger.

    Args:
        pixels: uint8 array of shape (height, width).
        attention: uint8 array of the same shape, 255 where it is strongest.

    Returns:
        uint8 array of shape (height, width, 3).
    """
    share = attention / 255
    alpha = _HEAT_SHARE * np.sqrt(share)[..., None]
    heat = 255 * _HEAT(share)[..., :3]
    return np.rint((1 - alpha) * pixels[..., None] + alpha * heat).astype(np.uint8)


def show_gallery(run: str, sheet: bytes, table: pd.DataFrame) -> Gallery:
    """Turn what `explain` kept of a run into pictures.

    Args:
        run: its name.
        sheet: a WebP file of square pictures, a row an image: the image, then its maps.
        table: a row an image with `group`, `actual`, `predicted`, `probability` and `maps`, their names.
    """
    rows = np.vsplit(np.asarray(Image.open(io.BytesIO(sheet)).convert("L")), len(table))
    images = []
    for pictures, row in zip(rows, table.itertuples(), strict=True):
        names = str(row.maps).split(", ")
        pixels, *maps = np.hsplit(pictures, 1 + len(names))
        caption = f"{row.actual}, called {row.predicted} ({row.probability:.2f})"
        images.append(
            GalleryImage(
                str(row.group),
                caption,
                Photo(encode_photo(pixels), f"Chest image, {caption}"),
                {
                    name: Photo(
                        encode_photo(overlay_map(pixels, values)), f"The same image under its {name} map"
                    )
                    for name, values in zip(names, maps, strict=True)
                },
            )
        )
    return Gallery(run, images)


def show_views(run: str, sheet: bytes) -> Views:
    """Show the sheet of views that training has kept.

    Args:
        run: its name.
        sheet: a WebP file.
    """
    alt = f"Training images, a row each, and random views of them as {run} sees them"
    return Views(run, Photo(_address(sheet), alt))


def show_samples(samples: npt.NDArray[np.uint8], manifest: pd.DataFrame) -> list[PhotoRow]:
    """Show training images of each subtype as they come.

    Args:
        samples: uint8 array of shape (n_subtypes, n, size_px, size_px).
        manifest: with `split` and `subtype`.
    """
    return [
        PhotoRow(
            name,
            "",
            [Photo(encode_photo(pixels), f"Training image, {name}") for pixels in row if pixels.any()],
        )
        for name, row in zip(_name_subtypes(manifest), samples, strict=True)
    ]


def show_combos(
    samples: Mapping[str, npt.NDArray[np.uint8]], manifest: pd.DataFrame, steps: Mapping[str, str]
) -> list[PhotoRow]:
    """Show the same training images under every combo.

    Args:
        samples: combo -> uint8 array of shape (n_subtypes, n, size_px, size_px).
        manifest: with `split` and `subtype`.
        steps: combo -> its steps in words.
    """
    names = _name_subtypes(manifest)
    return [
        PhotoRow(
            combo,
            steps[combo],
            [
                Photo(encode_photo(pixels), f"Training image, {name}, under {combo}")
                for name, row in zip(names, of_combo, strict=True)
                for pixels in row
                if pixels.any()
            ],
        )
        for combo, of_combo in samples.items()
    ]


def _address(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _name_subtypes(manifest: pd.DataFrame) -> list[str]:
    train = set(manifest.loc[find_training_images(manifest), "subtype"])
    return [str(subtype) for subtype in Subtype if subtype in train]
