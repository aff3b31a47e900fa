"""How a file becomes pixels: one way for the whole product.

`prepare` checks files with it, `preprocess` and `predict` read with it, so all of them see the same pixels
and refuse the same files.

What is done with pixels that are not 8-bit grey:

- Colour is reduced to luminance (ITU-R 601). A JPEG's own luminance channel is taken as it is.
- Transparent pixels are laid over black, the background of a radiograph.
- 16-bit grey is scaled over the full range of the stored bits, 0 to 65,535 (a TIFF may state fewer bits, as
  12). Which part of the range a detector used is not in the file, so nothing is stretched: a 12-bit
  radiograph stored as plain 16-bit comes out almost black, and `suspicious` names it.
- 32-bit and floating-point pixels are refused: their range is not stated anywhere.
- A file with several frames is refused: nothing says which one is the radiograph. Only the preview pictures
  that phones append to a JPEG (format MPO) are passed over, as there the first image is the main one.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFile, TiffImagePlugin, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_PIXELS = 100_000_000
_LIMIT_TEXT = f"{MAX_PIXELS / 1e6:.0f} megapixels"

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_JPEG_SCAN_START, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_EXTRA_SCAN_DATA = b"".join(bytes(range(1, 255)) + bytes((0xFF, restart)) for restart in range(0xD0, 0xD8))
# A progressive file has up to about 10. Each takes the time of a whole image, whatever its size in bytes.
_MAX_JPEG_SCANS = 32
_UNDECODED_GREY_LEVELS = (127, 128)  # the middle of the range, as stored or inverted (CMYK)
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 262, 0
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SMALLEST_SIDE_PX = 32
_NARROWEST_RANGE = 16  # what 12 bits in 16 leave, of 255

_warnings_lock = threading.Lock()


class UnreadableImageError(Exception):
    """The bytes are no image that can be used; the message is a short reason for people."""


@dataclass(frozen=True)
class DecodedImage:
    """An image as a person would see it on a screen.

    Attributes:
        pixels: uint8 array of shape (height, width), grey, 0 is black; read-only.
        width: width as displayed, that is after the EXIF orientation is applied.
        height: height as displayed.
        mode: pixel format as stored, in Pillow's words: "L", "RGB", "CMYK", "I;16", ...
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode a JPEG, PNG, BMP, TIFF or WebP file to 8-bit grey; safe to call from several threads.

    Args:
        data: the whole content of the file. Its name plays no part.
        max_pixels: what has more of them is refused before they are decoded.

    Returns:
        The decoded image.

    Raises:
        UnreadableImageError: empty, truncated, damaged, too large, or its pixels would have to be guessed.
    """
    if not data:
        raise UnreadableImageError("empty file")
    try:
        return _decode(data, max_pixels)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not a readable JPEG, PNG, BMP, TIFF or WebP image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"too large: over {_LIMIT_TEXT}") from None
    except Exception as error:  # Pillow's parsers let through whatever they stumble over in a hostile file
        if "truncated" in str(error).lower():
            raise UnreadableImageError("truncated") from error
        raise UnreadableImageError(f"damaged: {error or type(error).__name__}") from error


def suspicious(pixels: np.ndarray) -> str | None:
    """Say why a readable image deserves a look before it is trained on.

    Args:
        pixels: uint8 array of shape (height, width).

    Returns:
        A short reason, or None where there is none.
    """
    height, width = pixels.shape
    if min(height, width) < _SMALLEST_SIDE_PX:
        return f"small: {width} x {height} px"
    if int(pixels.max()) - int(pixels.min()) <= _NARROWEST_RANGE:
        return f"nearly constant: grey levels {pixels.min()} to {pixels.max()}"
    return None


def _decode(data: bytes, max_pixels: int) -> DecodedImage:
    image = _open(data)
    mode = image.mode
    width, height = image.size
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:.0f} megapixels"
        raise UnreadableImageError(f"too large: {width} x {height} px (limit {limit})")
    if image.format in ("JPEG", "MPO") and data.count(_JPEG_SCAN_START) > _MAX_JPEG_SCANS:
        raise UnreadableImageError(f"damaged: over {_MAX_JPEG_SCANS} scans")
    with _without_warnings():
        n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":
        raise UnreadableImageError(f"holds {n_frames} frames, not one image")

    if image.format == "PNG":
        _open(data).verify()  # the only format here with checksums; Pillow leaves them out when it decodes
    image.draft("L", None)  # of a JPEG, decode the luminance channel alone
    image.load()
    if image.format in ("JPEG", "MPO") and _is_jpeg_cut_short(data, image):
        raise UnreadableImageError("truncated")

    with _without_warnings():
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    grey = _to_grey(image)
    if orientation in _UPRIGHT:
        grey = grey.transpose(_UPRIGHT[orientation])
    return DecodedImage(pixels=np.asarray(grey), width=grey.width, height=grey.height, mode=mode)


def _open(data: bytes) -> ImageFile.ImageFile:
    with _without_warnings():
        return Image.open(io.BytesIO(data), formats=_FORMATS)


def _is_jpeg_cut_short(data: bytes, image: Image.Image) -> bool:
    """Say whether the decoder ran out of data and filled the rest with grey without a word.

    It does so where the end of the file is lost but an end marker follows all the same, or was overwritten
    with zeros. Not seen is the loss of a few bytes, within the last blocks of 8 x 8 pixels, or that of later
    scans of a progressive file, which leaves a coarser but complete picture.

    Args:
        data: the whole file.
        image: the same, decoded and not yet turned upright.
    """
    end = data.rfind(_JPEG_END)
    if end < 0 or data.find(_JPEG_SCAN_START, end) >= 0:  # none, or only that of a thumbnail in the header
        return True
    left, top = (image.width - 1) // 8 * 8, (image.height - 1) // 8 * 8
    last_block = np.asarray(image.crop((left, top, image.width, image.height)))
    if not np.isin(last_block, _UNDECODED_GREY_LEVELS).all():
        return False
    # A decoder that has all it needs passes over extra bytes before the end marker; a starved one eats them.
    fed = _open(data[:end].rstrip(b"\xff") + _EXTRA_SCAN_DATA + _JPEG_END)
    fed.draft("L", None)
    return ImageChops.difference(image, fed).getbbox() is not None


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_scale_16_bit(image))
    if image.mode in ("I", "F"):
        raise UnreadableImageError(f"32-bit pixels (mode {image.mode}), whose range is not stated")
    if image.has_transparency_data:
        grey, alpha = image.convert("RGBA").convert("LA").split()
        return Image.composite(grey, Image.new("L", grey.size), alpha)
    return image if image.mode == "L" else image.convert("L")


def _scale_16_bit(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image).astype(np.uint32)
    highest = 2**16 - 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        (n_bits,) = image.tag_v2[_TIFF_BITS_PER_SAMPLE]
        highest = 2**n_bits - 1
        if image.tag_v2[_TIFF_PHOTOMETRIC] == _TIFF_WHITE_IS_ZERO:  # Pillow leaves this to us beyond 8 bits
            pixels = highest - pixels
    if "transparency" in image.info:
        pixels[pixels == image.info["transparency"]] = 0
    return ((pixels * 255 + highest // 2) // highest).astype(np.uint8)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Drop what Pillow warns of while it reads headers; what matters to us becomes an error or nothing.

    The lock is there because `catch_warnings` changes the state of the whole process.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
