"""Decoding of image files to 8-bit grey pixels.

`prepare` checks files with this module, `preprocess` and `predict` read with it, so that all of them see the
same pixels and refuse the same files.

Pixels that are not 8-bit grey:

- Colour is reduced to luminance (ITU-R 601). Of a JPEG, its own luminance channel is taken unchanged.
- Transparent pixels are composited over black, the background of a radiograph.
- 16-bit grey is scaled from the full range of the stored bits, 0 to 65,535 (a TIFF may state fewer bits, such
  as 12). The range that a detector used is not stored in the file, so no other scaling is applied: a 12-bit
  radiograph stored as plain 16-bit becomes almost black, and `suspicious` reports it.
- 32-bit and floating-point pixels are refused, because no file states their range.
- A file with several frames is refused, because no file states which one is the radiograph. The exception is
  MPO, a JPEG to which phones append preview pictures: its first image is the main one.
- DICOM files state the meaning of their pixels, see `dicom`.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFile, TiffImagePlugin, UnidentifiedImageError

from pneumo.base.errors import PneumoError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom")
MAX_PIXELS = 100_000_000
_LIMIT_TEXT = f"{MAX_PIXELS / 1e6:.0f} megapixels"

_DICOM_PREFIX, _DICOM_PREFIX_AT = b"DICM", 128
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
_LONGEST_REASON = 200
_NARROWEST_RANGE = 16  # of 255: that of 12 bits stored as 16

_warnings_lock = threading.RLock()


class UnreadableImageError(Exception):
    """The bytes are not an image that can be used; the message is a short reason."""


@dataclass(frozen=True)
class DecodedImage:
    """An image as viewers display it.

    Attributes:
        pixels: uint8 array of shape (height, width), grey, 0 is black; read-only.
        width: width after the EXIF orientation is applied.
        height: height after the EXIF orientation is applied.
        mode: pixel format as stored, by Pillow's names: "L", "RGB", "CMYK", "I;16", ...; of a DICOM file
            such as "MONOCHROME2 12-bit".
        patient: PatientID of a DICOM file, else "".
        view: ViewPosition of a DICOM file, such as "PA" or "AP", else "".
        age: PatientAge of a DICOM file, such as "045Y", else "".
        sex: PatientSex of a DICOM file, such as "F" or "M", else "".
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str
    patient: str = ""
    view: str = ""
    age: str = ""
    sex: str = ""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode a JPEG, PNG, BMP, TIFF, WebP or DICOM file to 8-bit grey; safe to call from several threads.

    Args:
        data: the whole content of the file. The format is found from the content, not from a name.
        max_pixels: an image of more pixels is refused before it is decoded.

    Returns:
        The decoded image.

    Raises:
        UnreadableImageError: the file is empty, truncated, damaged or too large, or the meaning of its pixels
            is not stated in it.
        PneumoError: it is a DICOM file, and the packages that read them are not installed.
    """
    if not data:
        raise UnreadableImageError("empty file")
    decode = _import_dicom_decoder() if data.startswith(_DICOM_PREFIX, _DICOM_PREFIX_AT) else _decode
    try:
        return decode(data, max_pixels)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not a readable JPEG, PNG, BMP, TIFF, WebP or DICOM image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"too large: over {_LIMIT_TEXT}") from None
    except Exception as error:  # of a hostile file, parsers raise errors of many kinds
        if "truncated" in str(error).lower():
            raise UnreadableImageError("truncated") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"damaged: {reason[:_LONGEST_REASON]}") from error


def require_size(width: int, height: int, max_pixels: int) -> None:
    """Raise an UnreadableImageError for an image of more than `max_pixels` pixels."""
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:.0f} megapixels"
        raise UnreadableImageError(f"too large: {width} x {height} px (limit {limit})")


def _import_dicom_decoder() -> Callable[[bytes, int], DecodedImage]:
    try:
        from pneumo.data.dicom import decode_dicom  # builds on this module; most data sets do not need it
    except ImportError as error:
        raise PneumoError(
            f"Expected the packages that read DICOM files. Received: {error}. Install them with "
            "`pip install 'pneumo[dicom]'`."
        ) from error
    return decode_dicom


def suspicious(pixels: np.ndarray) -> str | None:
    """Return why a readable image looks unusual.

    Args:
        pixels: uint8 array of shape (height, width).

    Returns:
        A short reason, or None for a usual image.
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
    require_size(width, height, max_pixels)
    if image.format in ("JPEG", "MPO") and data.count(_JPEG_SCAN_START) > _MAX_JPEG_SCANS:
        raise UnreadableImageError(f"damaged: over {_MAX_JPEG_SCANS} scans")
    with without_warnings():
        n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":
        raise UnreadableImageError(f"holds {n_frames} frames, not one image")

    if image.format == "PNG":
        _open(data).verify()  # of these formats, PNG alone has checksums, and load() does not check them
    image.draft("L", None)  # of a JPEG, decode only the luminance channel
    image.load()
    if image.format in ("JPEG", "MPO") and _is_jpeg_cut_short(data, image):
        raise UnreadableImageError("truncated")

    with without_warnings():
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    grey = _to_grey(image)
    if orientation in _UPRIGHT:
        grey = grey.transpose(_UPRIGHT[orientation])
    return DecodedImage(pixels=np.asarray(grey), width=grey.width, height=grey.height, mode=mode)


def _open(data: bytes) -> ImageFile.ImageFile:
    with without_warnings():
        return Image.open(io.BytesIO(data), formats=_FORMATS)


def _is_jpeg_cut_short(data: bytes, image: Image.Image) -> bool:
    """Return whether the decoder ran out of data and filled the rest with grey without an error.

    It does so where the end of the scan is missing but an end marker follows, or was overwritten with zeros.
    Two losses are not detected: of a few bytes in the last blocks of 8 x 8 pixels, and of later scans of a
    progressive file, which leaves a coarser but complete picture.

    Args:
        data: the whole file.
        image: the same file, decoded, before its orientation is applied.
    """
    end = data.rfind(_JPEG_END)
    if (
        end < 0 or data.find(_JPEG_SCAN_START, end) >= 0
    ):  # no end marker, or only that of a thumbnail in the header
        return True
    left, top = (image.width - 1) // 8 * 8, (image.height - 1) // 8 * 8
    last_block = np.asarray(image.crop((left, top, image.width, image.height)))
    if not np.isin(last_block, _UNDECODED_GREY_LEVELS).all():
        return False
    # A decoder that has all its data ignores extra bytes before the end marker, others decode them.
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
        if image.tag_v2[_TIFF_PHOTOMETRIC] == _TIFF_WHITE_IS_ZERO:  # which Pillow applies to 8 bits only
            pixels = highest - pixels
    if "transparency" in image.info:
        pixels[pixels == image.info["transparency"]] = 0
    return ((pixels * 255 + highest // 2) // highest).astype(np.uint8)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore the warnings of decoders about headers, such as damaged EXIF data.

    The lock is needed because `catch_warnings` changes the state of the whole process.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
