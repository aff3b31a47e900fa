"""DICOM files written by the tests, in every transfer syntax that there is an encoder for."""

import io
import struct

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate


def build_dataset(pixels: np.ndarray, n_bits: int | None = None, **elements: object) -> Dataset:
    """Build an uncompressed image.

    Args:
        pixels: (rows, columns) of 8 or 16 bits, signed or not, or uint8 of (rows, columns, 3).
        n_bits: stored bits; all of the dtype's where it is not given.
        elements: keyword -> value, set last.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3")
    dataset.PatientID, dataset.ViewPosition, dataset.Modality = "P 1", "PA", "CR"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = n_bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = pixels.tobytes()
    dataset.add_new(
        "PixelData", "OW" if dataset.BitsAllocated > 8 else "OB", content + bytes(len(content) % 2)
    )
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def encode_dataset(dataset: Dataset) -> bytes:
    """Write a data set as a file in memory."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(pixels: np.ndarray, n_bits: int | None = None, **elements: object) -> bytes:
    """Write an uncompressed file; arguments as of `build_dataset`."""
    return encode_dataset(build_dataset(pixels, n_bits, **elements))


def dicom_with_frame(
    frame: bytes, syntax: str, pixels: np.ndarray, n_bits: int | None = None, **elements: object
) -> bytes:
    """Write a file with a compressed frame, whatever its bytes are."""
    dataset = build_dataset(pixels, n_bits, **elements)
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return encode_dataset(dataset)


def compress(pixels: np.ndarray, syntax: str, n_bits: int | None = None, **elements: object) -> bytes:
    """Write a file in one of LOSSLESS_SYNTAXES or as baseline JPEG."""
    if syntax in FRAME_ENCODERS:
        return dicom_with_frame(FRAME_ENCODERS[syntax](pixels, n_bits), syntax, pixels, n_bits, **elements)
    dataset = build_dataset(pixels, n_bits, **elements)
    if syntax in COMPRESSED_BY_PYDICOM:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax == uid.ExplicitVRBigEndian:
        if pixels.dtype.itemsize == 2:
            dataset.PixelData = pixels.byteswap().tobytes()
        dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=False, enforce_file_format=True)
        return buffer.getvalue()
    else:
        dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    return encode_dataset(dataset)


def encode_jpeg(pixels: np.ndarray, n_bits: int | None = None) -> bytes:  # noqa: ARG001
    """Encode 8-bit pixels as baseline JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def encode_jpeg_lossless(pixels: np.ndarray, n_bits: int | None = None) -> bytes:
    """Encode pixels as lossless JPEG (ITU-T T.81 Annex H) that predicts each pixel by its left one.

    All 17 categories of differences have a code of 5 bits, which is simple and far from the shortest.
    """
    n_bits = n_bits or pixels.dtype.itemsize * 8
    height, width = pixels.shape
    values = pixels.astype(np.int64) & (2**n_bits - 1)  # signed pixels as their bits
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 2 ** (n_bits - 1)
    bits = []
    for difference in (values - predicted).ravel():
        n = int(abs(difference)).bit_length()
        bits.append(f"{n:05b}")
        if n:
            bits.append(f"{difference if difference > 0 else difference + 2**n - 1:0{n}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    return (
        b"\xff\xd8"
        + segment(0xC3, struct.pack(">BHHB", n_bits, height, width, 1) + b"\x01\x11\x00")
        + segment(0xC4, table)
        + segment(0xDA, b"\x01\x01\x00" + b"\x01\x00\x00")
        + scan
        + b"\xff\xd9"
    )


FRAME_ENCODERS = {
    uid.JPEGBaseline8Bit: encode_jpeg,
    uid.JPEGLossless: encode_jpeg_lossless,
    uid.JPEGLosslessSV1: encode_jpeg_lossless,
}
COMPRESSED_BY_PYDICOM = (uid.RLELossless, uid.JPEG2000Lossless)
LOSSLESS_SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEG2000Lossless,
)
