"""Decoding of DICOM files to 8-bit grey pixels, as a viewer displays them.

This module needs the packages of the extra `dicom`. `decoding` imports it when it meets a DICOM file.

Grey values go through the pipeline of the standard (PS3.4 N.2): modality LUT or rescaling, VOI LUT or window,
and inversion for MONOCHROME1. Of several windows, the first is used. Without VOI LUT and window, the full
range of the stored bits becomes 0 to 255, as with other 16-bit files. Padding becomes black. 8-bit colour is
reduced to luminance. Several frames, more than 16 bits, floating-point pixels and palettes are refused.
Orientation, overlays and the aspect ratio of pixels are ignored.
"""

import io
import struct
import zlib
from typing import Any

# pydicom ignores missing decoders, and their files would look damaged.
import libjpeg  # noqa: F401
import numpy as np
import numpy.typing as npt
import openjpeg  # noqa: F401
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from pneumo.data.decoding import (
    DecodedImage,
    UnreadableImageError,
    decode_image,
    require_size,
    without_warnings,
)

_JPEG_SYNTAXES = {*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes}
_JPEG_2000_SYNTAXES = {*uid.JPEG2000TransferSyntaxes}
_SYNTAXES = {
    *uid.UncompressedTransferSyntaxes,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    *_JPEG_SYNTAXES,
    *_JPEG_2000_SYNTAXES,
}
# Photometric interpretation and samples per pixel.
_GREYS = {("MONOCHROME1", 1), ("MONOCHROME2", 1)}
_COLOURS = {(name, 3) for name in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")}
# Where the file meta information begins, after the preamble and the element with its length.
_META_START, _META_END_LIMIT = 144, 4096
_MAX_INFLATED_BYTES = 2**28  # MAX_PIXELS of 16 bits, and a header
_JPEG_START, _JPEG_END, _JPEG_2000_START = b"\xff\xd8", b"\xff\xd9", b"\xff\x4f\xff\x51"
# Markers of JPEG's frame headers (SOF0 to SOF15 without the tables DHT, JPG and DAC) and of that of JPEG-LS.
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.signedinteger[Any] | np.unsignedinteger[Any]]


def decode_dicom(data: bytes, max_pixels: int) -> DecodedImage:
    """Decode a DICOM file.

    Args:
        data: the whole content of the file.
        max_pixels: an image of more pixels is refused before it is decoded.

    Returns:
        The decoded image, with the patient, view, age and sex that the file states. `mode` is the photometric
        interpretation and the number of stored bits, such as "MONOCHROME2 12-bit".

    Raises:
        UnreadableImageError: the file is one of those that the module refuses. Other errors, of any kind,
            mean that it is damaged.
    """
    with without_warnings():
        _check_inflated_size(data)
        dataset = pydicom.dcmread(io.BytesIO(data))
        _check_header(dataset, max_pixels)
        photometric, n_bits = str(dataset.PhotometricInterpretation), int(dataset.BitsStored)
        kind = photometric, int(dataset.SamplesPerPixel)
        if kind in _GREYS:
            pixels = _decode_grey(dataset)
        elif kind in _COLOURS and dataset.BitsAllocated == n_bits == 8:
            pixels = np.asarray(Image.fromarray(_decode_pixels(dataset)).convert("L"))
        else:
            raise UnreadableImageError(f"pixels are {photometric} with {kind[1]} values of {n_bits} bits")
        return DecodedImage(
            pixels=pixels,
            width=pixels.shape[1],
            height=pixels.shape[0],
            mode=f"{photometric} {n_bits}-bit",
            patient=_read_text(dataset, "PatientID"),
            view=_read_text(dataset, "ViewPosition"),
            age=_read_text(dataset, "PatientAge"),
            sex=_read_text(dataset, "PatientSex"),
        )


def _read_text(dataset: pydicom.Dataset, keyword: str) -> str:
    return str(dataset.get(keyword, "") or "").strip()


def _check_inflated_size(data: bytes) -> None:
    """Refuse a deflated file that expands without limit, because pydicom inflates all of it at once."""
    if uid.DeflatedExplicitVRLittleEndian.encode() not in data[:_META_END_LIMIT]:
        return
    (n_meta_bytes,) = struct.unpack_from("<I", data, _META_START - 4)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    rest, n_bytes = data[_META_START + n_meta_bytes :], 0
    while rest and not inflater.eof:
        n_bytes += len(inflater.decompress(rest, 2**20))
        rest = inflater.unconsumed_tail
        if n_bytes > _MAX_INFLATED_BYTES:
            raise UnreadableImageError(f"too large: over {_MAX_INFLATED_BYTES // 2**20} MB when inflated")


def _check_header(dataset: pydicom.Dataset, max_pixels: int) -> None:
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise UnreadableImageError("floating-point pixels, whose range is not stated")
    if "PixelData" not in dataset:
        raise UnreadableImageError("a DICOM file without an image")
    n_frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if n_frames != 1:
        raise UnreadableImageError(f"holds {n_frames} frames, not one image")
    require_size(int(dataset.Columns), int(dataset.Rows), max_pixels)
    if dataset.BitsAllocated not in (8, 16):
        raise UnreadableImageError(f"{dataset.BitsAllocated}-bit pixels")
    if not 0 < dataset.BitsStored <= dataset.BitsAllocated or dataset.HighBit != dataset.BitsStored - 1:
        raise UnreadableImageError(
            f"pixels of {dataset.BitsStored} bits up to bit {dataset.HighBit} of {dataset.BitsAllocated}"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in _SYNTAXES:
        raise UnreadableImageError(f"stored as {syntax.name}, which is not supported")


def _decode_grey(dataset: pydicom.Dataset) -> npt.NDArray[np.uint8]:
    stored = _decode_pixels(dataset)  # without the bits above those stored, which pydicom clears
    lowest = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    table = _tabulate_grey_levels(dataset, np.arange(lowest, lowest + 2**dataset.BitsStored))
    return table[stored.astype(np.int32) - lowest]


def _tabulate_grey_levels(dataset: pydicom.Dataset, stored: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return the grey level of each stored value, uint8 array of the same shape."""
    values: FloatArray = stored.astype(np.float64)
    if dataset.get("ModalityLUTSequence"):
        values, highest = _apply_lut(values, dataset.ModalityLUTSequence[0], dataset)
        limits = 0.0, highest
    else:
        slope, intercept = (dataset.get(f"Rescale{name}") for name in ("Slope", "Intercept"))
        if slope is not None and intercept is not None:
            values = values * float(slope) + float(intercept)
        limits = values.min(), values.max()

    if dataset.get("VOILUTSequence"):
        values, highest = _apply_lut(values, dataset.VOILUTSequence[0], dataset)
        fractions = values / highest
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        fractions = _apply_window(values, dataset)
    else:
        fractions = (values - limits[0]) / (limits[1] - limits[0])
    if not np.isfinite(fractions).all():
        raise UnreadableImageError("its rescaling or window gives no grey levels")
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        fractions = 1 - fractions
    levels = np.rint(255 * fractions).astype(np.uint8)
    levels[_find_padding(dataset, stored)] = 0
    return levels


def _apply_lut(
    values: FloatArray, lut: pydicom.Dataset, dataset: pydicom.Dataset
) -> tuple[FloatArray, float]:
    """Look values up in an item of a Modality or VOI LUT Sequence; also return its highest possible entry."""
    n_entries, first, n_bits = (int(number) for number in lut.LUTDescriptor)
    n_entries = n_entries or 2**16
    entries = lut.LUTData
    if isinstance(entries, bytes):
        is_packed = len(entries) < 2 * n_entries  # 8-bit entries may be packed two to a word
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        entries = np.frombuffer(entries, np.uint8 if is_packed else f"{order}u2")
    table = np.atleast_1d(np.asarray(entries, np.float64))[:n_entries]
    highest = 2.0**n_bits - 1
    if len(table) < n_entries or not 8 <= n_bits <= 16 or table.max() > highest:
        raise UnreadableImageError("its lookup table is not as its header says")
    rows = np.clip(np.rint(values) - first, 0, n_entries - 1).astype(np.int64)
    return table[rows], highest


def _apply_window(values: FloatArray, dataset: pydicom.Dataset) -> FloatArray:
    """Return fractions in [0, 1] by the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centre, width = (_first_number(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction", "") or "LINEAR").upper()
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    elif function not in ("LINEAR_EXACT", "SIGMOID"):
        raise UnreadableImageError(f"unknown VOI LUT function {function}")
    if width < 0 or (width == 0 and function != "LINEAR"):
        raise UnreadableImageError(f"a window of width {_first_number(dataset.WindowWidth):g}")
    if width == 0:
        return (values > centre).astype(np.float64)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _first_number(value: Any) -> float:
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


def _find_padding(dataset: pydicom.Dataset, stored: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Mark the stored values that stand for no image (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(first), int(first if last is None else last)))
    return (stored >= low) & (stored <= high)


def _decode_pixels(dataset: pydicom.Dataset) -> Any:
    """Return the stored values as an integer array of shape (rows, columns) or (rows, columns, 3)."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _JPEG_SYNTAXES or syntax in _JPEG_2000_SYNTAXES:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        _check_frame(frame, syntax, int(dataset.Columns), int(dataset.Rows))
        if syntax == uid.JPEGBaseline8Bit and dataset.SamplesPerPixel == 1:
            # libjpeg fills truncated scans with grey, which decode_image detects.
            pixels = decode_image(frame).pixels
        else:
            pixels = pixel_array(dataset, index=0, decoding_plugin="pylibjpeg")
    else:
        pixels = pixel_array(dataset, index=0)
    if pixels.shape[:2] != (dataset.Rows, dataset.Columns):
        raise UnreadableImageError(f"{pixels.shape[1]} x {pixels.shape[0]} px, other than its header says")
    return pixels


def _check_frame(frame: bytes, syntax: uid.UID, width: int, height: int) -> None:
    """Refuse a compressed frame that is truncated, or of another size than the header says."""
    if syntax in _JPEG_2000_SYNTAXES:
        if not frame.startswith(_JPEG_2000_START):
            raise UnreadableImageError("its frame is no JPEG 2000 codestream")
        right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
        size = right - left, bottom - top
    else:
        if not frame.startswith(_JPEG_START):
            raise UnreadableImageError("its frame is no JPEG stream")
        if not frame.rstrip(b"\0\xff").endswith(_JPEG_END):
            raise UnreadableImageError("truncated")
        size = _read_jpeg_size(frame)
    if size != (width, height):
        raise UnreadableImageError(
            f"its frame has {size[0]} x {size[1]} px, its header says {width} x {height}"
        )


def _read_jpeg_size(frame: bytes) -> tuple[int, int]:
    """Return width and height from the frame header of a JPEG or JPEG-LS stream."""
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">2H", frame, position + 5)
            return width, height
        position += 1 if marker == 0xFF else 2 + length
    raise UnreadableImageError("its frame has no header")
