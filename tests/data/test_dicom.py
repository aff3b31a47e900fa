import contextlib
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing  # noqa: E402

from dicom_files import (  # noqa: E402
    LOSSLESS_SYNTAXES,
    build_dataset,
    compress,
    dicom,
    dicom_with_frame,
    encode_dataset,
    encode_jpeg,
    encode_jpeg_lossless,
)
from hostile import draw_image, encode, jpeg  # noqa: E402
from pneumo.base.errors import PneumoError  # noqa: E402
from pneumo.data.decoding import MAX_PIXELS, UnreadableImageError, decode_image  # noqa: E402

SHIPPED = Path(pydicom.__file__).parent / "data/test_files"
GREY = draw_image(1, 50, 61)
GREY_12 = (GREY.astype(np.uint16) << 4) + (draw_image(2, 50, 61) >> 4)
SIGNED_12 = (GREY_12.astype(np.int32) - 2048).astype(np.int16)


def scale(values, low, high):
    return np.rint((values.astype(float) - low) / (high - low) * 255).clip(0, 255)


def expect_refused(data, *reasons):
    with pytest.raises(UnreadableImageError) as error:
        decode_image(data)
    message = str(error.value)
    assert "\n" not in message
    for reason in reasons:
        assert reason in message


def build_lut(entries, first, n_bits, as_bytes=False):
    """Build an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, n_bits])
    if as_bytes:
        item.add_new("LUTData", "OW", np.asarray(entries, as_bytes).tobytes())
    else:
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item


# Transfer syntaxes


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    ("pixels", "n_bits", "low", "high"),
    [(GREY, 8, 0, 255), (GREY_12, 12, 0, 4095), (GREY_12 * 15, 16, 0, 65535), (SIGNED_12, 12, -2048, 2047)],
    ids=["8", "12", "16", "signed 12"],
)
def test_every_syntax_gives_the_pixels_that_were_written(syntax, pixels, n_bits, low, high):
    decoded = decode_image(compress(pixels, syntax, n_bits))
    np.testing.assert_array_equal(decoded.pixels, scale(pixels, low, high))
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.height, decoded.width) == pixels.shape
    assert decoded.mode == f"MONOCHROME2 {n_bits}-bit"
    assert (decoded.patient, decoded.view) == ("P 1", "PA")


def test_baseline_jpeg_equals_the_same_jpeg_as_a_file():
    frame = encode_jpeg(GREY)
    decoded = decode_image(dicom_with_frame(frame, uid.JPEGBaseline8Bit, GREY))
    np.testing.assert_array_equal(decoded.pixels, decode_image(frame).pixels)
    np.testing.assert_allclose(decoded.pixels, GREY, atol=10)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_padded.dcm", "MR_small.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm"),
        ("SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd.dcm"),
    ],
)
def test_one_image_in_two_syntaxes_is_the_same(name, reference):
    first, second = (decode_image((SHIPPED / each).read_bytes()) for each in (name, reference))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.pixels.std() > 1


@pytest.mark.parametrize(
    ("name", "shape", "mode"),
    [
        ("693_J2KI.dcm", (512, 512), "MONOCHROME2 14-bit"),
        ("J2K_pixelrep_mismatch.dcm", (512, 512), "MONOCHROME2 13-bit"),
        ("JPGExtended.dcm", (1024, 256), "MONOCHROME2 12-bit"),
        ("JPEGLSNearLossless_08.dcm", (45, 10), "MONOCHROME2 8-bit"),
        ("JPEGLSNearLossless_16.dcm", (50, 10), "MONOCHROME2 16-bit"),
        ("examples_overlay.dcm", (300, 484), "MONOCHROME2 12-bit"),
        ("image_dfl.dcm", (512, 512), "MONOCHROME2 8-bit"),
        ("SC_rgb_dcmtk_+eb+cy+s2.dcm", (100, 100), "YBR_FULL_422 8-bit"),
        ("SC_rgb_gdcm_KY.dcm", (100, 100), "RGB 8-bit"),
        ("SC_ybr_full_422_uncompressed.dcm", (100, 100), "YBR_FULL_422 8-bit"),
        ("examples_jpeg2k.dcm", (480, 640), "YBR_RCT 8-bit"),
    ],
)
def test_files_that_pydicom_ships_are_read(name, shape, mode):
    data = (SHIPPED / name).read_bytes()
    decoded = decode_image(data)
    assert decoded.pixels.shape == shape
    assert decoded.mode == mode
    dataset = pydicom.dcmread(SHIPPED / name)
    assert decoded.patient == dataset.get("PatientID", "")
    if mode.startswith("MONOCHROME"):  # brighter where the values are greater
        values = apply_modality_lut(dataset.pixel_array, dataset).ravel()
        order = np.argsort(values, kind="stable")
        assert (np.diff(decoded.pixels.ravel()[order].astype(int)) >= 0).all()
        assert np.ptp(decoded.pixels) > 10


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.dcm")), ids=lambda path: path.name)
def test_files_that_pydicom_ships_are_read_or_refused(path):
    with warnings.catch_warnings(), contextlib.suppress(UnreadableImageError):
        warnings.simplefilter("error")
        decoded = decode_image(path.read_bytes())
        assert decoded.pixels.shape == (decoded.height, decoded.width)


# From stored values to grey levels


@pytest.mark.parametrize("n_bits", [8, 10, 12, 14, 16])
def test_the_full_range_of_the_stored_bits_is_used(n_bits):
    values = np.linspace(0, 2**n_bits - 1, 300).astype(np.uint16).reshape(15, 20)
    decoded = decode_image(dicom(values.astype(np.uint8) if n_bits == 8 else values, n_bits))
    np.testing.assert_array_equal(decoded.pixels, scale(values, 0, 2**n_bits - 1))


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless, uid.JPEG2000Lossless]
)
def test_bits_above_those_stored_are_ignored(syntax):
    for pixels, low in ((GREY_12, 0), (SIGNED_12, -2048)):
        overlaid = pixels ^ (np.arange(pixels.size).reshape(pixels.shape) % 16 << 12).astype(pixels.dtype)
        assert (overlaid != pixels).any()
        expected = scale(pixels, low, low + 4095)
        np.testing.assert_array_equal(decode_image(compress(overlaid, syntax, 12)).pixels, expected)


def test_monochrome1_is_inverted():
    plain = decode_image(dicom(GREY_12, 12)).pixels
    inverted = decode_image(dicom(GREY_12, 12, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(inverted.pixels, 255 - plain.astype(int), atol=1)
    assert inverted.mode == "MONOCHROME1 12-bit"
    window = {"WindowCenter": 2000, "WindowWidth": 1500}
    plain = decode_image(dicom(GREY_12, 12, **window)).pixels
    inverted = decode_image(dicom(GREY_12, 12, PhotometricInterpretation="MONOCHROME1", **window)).pixels
    np.testing.assert_allclose(inverted, 255 - plain.astype(int), atol=1)


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2.5, 100), (0.1, 0)])
def test_rescaling_alone_changes_nothing(slope, intercept):
    decoded = decode_image(dicom(GREY_12, 12, RescaleSlope=slope, RescaleIntercept=intercept))
    np.testing.assert_array_equal(decoded.pixels, scale(GREY_12, 0, 4095))


def test_a_negative_slope_inverts():
    rescaling = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    decoded = decode_image(dicom(GREY_12, 12, **rescaling)).pixels
    np.testing.assert_array_equal(decoded, scale(4095 - GREY_12.astype(int), 0, 4095))
    decoded = decode_image(dicom(GREY_12, 12, WindowCenter=2000, WindowWidth=1001, **rescaling)).pixels
    np.testing.assert_array_equal(decoded, scale(4095 - GREY_12.astype(int), 1499.5, 2499.5))


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(
    ("centre", "width"), [(2048, 4096), (1000.5, 300), (3000, 2), (-500, 4000), (2000, 1.5)]
)
@pytest.mark.parametrize(
    ("pixels", "rescaling"), [(GREY_12, (1, 0)), (SIGNED_12, (2, 300))], ids=["", "signed"]
)
def test_windows_equal_those_of_pydicom(function, centre, width, pixels, rescaling):
    dataset = build_dataset(pixels, 12, WindowCenter=centre, WindowWidth=width)
    dataset.RescaleSlope, dataset.RescaleIntercept = rescaling
    if function:
        dataset.VOILUTFunction = function
    with np.errstate(over="ignore"):
        values = apply_windowing(apply_modality_lut(pixels, dataset), dataset)
    low = (0 if pixels is GREY_12 else -2048) * rescaling[0] + rescaling[1]
    expected = scale(values, low, low + 4095 * rescaling[0])
    np.testing.assert_allclose(decode_image(encode_dataset(dataset)).pixels, expected, atol=1)


def test_a_window_of_width_1_is_a_threshold():
    decoded = decode_image(dicom(GREY_12, 12, WindowCenter=2000, WindowWidth=1)).pixels
    np.testing.assert_array_equal(decoded, np.where(GREY_12 > 1999, 255, 0))


def test_the_first_of_several_windows_is_used():
    first = decode_image(dicom(GREY_12, 12, WindowCenter=1000, WindowWidth=500)).pixels
    both = dicom(GREY_12, 12, WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    np.testing.assert_array_equal(decode_image(both).pixels, first)


@pytest.mark.parametrize("as_bytes", [False, "<u2"])
@pytest.mark.parametrize("first", [0, 500, -300])
def test_lookup_tables_are_applied(first, as_bytes):
    entries = np.rint(1023 * np.sqrt(np.arange(3000) / 2999)).astype(int)
    pixels, n_signed = (SIGNED_12, 1) if first < 0 else (GREY_12, 0)
    expected = [entries[min(max(int(value) - first, 0), 2999)] for value in pixels.ravel()]
    expected = scale(np.reshape(expected, pixels.shape), 0, 1023)
    item = build_lut(entries, first, 10, as_bytes)
    for name in ("ModalityLUTSequence", "VOILUTSequence"):
        dataset = build_dataset(pixels, 12, **{name: [item]})
        assert dataset.PixelRepresentation == n_signed
        np.testing.assert_array_equal(decode_image(encode_dataset(dataset)).pixels, expected)
        apply = apply_modality_lut if name.startswith("M") else apply_voi
        if not as_bytes and name.startswith("V"):  # pydicom's dtype does for such tables
            np.testing.assert_array_equal(scale(apply(pixels, dataset), 0, 1023), expected)


def test_a_table_of_8_bits_with_many_entries():
    entries = (np.arange(4096) >> 4).astype(np.uint8)
    for as_bytes in ("u1", "<u2"):
        data = dicom(GREY_12, 12, VOILUTSequence=[build_lut(entries, 0, 8, as_bytes)])
        np.testing.assert_array_equal(decode_image(data).pixels, GREY_12 >> 4)


def test_modality_and_voi_are_applied_in_order():
    modality = build_lut(np.minimum(np.arange(4096) * 4, 65535), 0, 16)
    voi = build_lut(np.arange(4096) // 16, 8000, 8)
    data = dicom(GREY_12, 12, ModalityLUTSequence=[modality], VOILUTSequence=[voi], PhotometricInterpretation="MONOCHROME1")  # fmt: skip # noqa: E501
    values = GREY_12.astype(int) * 4
    expected = 255 - np.clip(values - 8000, 0, 4095) // 16
    np.testing.assert_array_equal(decode_image(data).pixels, expected)
    windowed = dicom(GREY_12, 12, ModalityLUTSequence=[modality], WindowCenter=8000, WindowWidth=4001)
    np.testing.assert_array_equal(decode_image(windowed).pixels, scale(values, 5999.5, 9999.5))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_black(photometric):
    pixels = np.maximum(GREY_12, 100)
    pixels[:5], pixels[-5:] = 4, 9
    plain = decode_image(dicom(pixels, 12, PhotometricInterpretation=photometric)).pixels
    padded = decode_image(
        dicom(pixels, 12, PhotometricInterpretation=photometric, PixelPaddingValue=4)
    ).pixels
    np.testing.assert_array_equal(padded[:5], 0)
    np.testing.assert_array_equal(padded[5:], plain[5:])
    limits = {"PixelPaddingValue": 9, "PixelPaddingRangeLimit": 4}
    padded = decode_image(dicom(pixels, 12, PhotometricInterpretation=photometric, **limits)).pixels
    np.testing.assert_array_equal(padded[[*range(5), *range(-5, 0)]], 0)
    np.testing.assert_array_equal(padded[5:-5], plain[5:-5])


def test_colour_is_reduced_to_luminance():
    colour = np.dstack([GREY, draw_image(3, 50, 61), draw_image(4, 50, 61)])
    expected = colour.astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(decode_image(dicom(colour)).pixels, expected, atol=0.51)
    planes = dicom(np.moveaxis(colour, 2, 0).copy().reshape(colour.shape), PlanarConfiguration=1)
    np.testing.assert_allclose(decode_image(planes).pixels, expected, atol=0.51)


# Patient and view


def test_patient_and_view_are_stripped_and_may_be_missing():
    decoded = decode_image(
        dicom(GREY, PatientID=" Müller 7 ", ViewPosition="AP ", SpecificCharacterSet="ISO_IR 192")
    )
    assert (decoded.patient, decoded.view) == ("Müller 7", "AP")
    for value in ("", None):
        decoded = decode_image(dicom(GREY, PatientID=value, ViewPosition=value))
        assert (decoded.patient, decoded.view) == ("", "")
    dataset = build_dataset(GREY)
    del dataset.PatientID, dataset.ViewPosition
    decoded = decode_image(encode_dataset(dataset))
    assert (decoded.patient, decoded.view) == ("", "")
    plain = decode_image(jpeg(1))
    assert (plain.patient, plain.view) == ("", "")


# What is refused


@pytest.mark.parametrize(
    ("elements", "reasons"),
    [
        ({"NumberOfFrames": 2}, ["holds 2 frames"]),
        ({"NumberOfFrames": 0}, []),
        ({"Rows": 20_000, "Columns": 20_000}, ["too large: 20000 x 20000 px"]),
        ({"Rows": 51}, ["damaged"]),
        ({"Rows": 0}, ["damaged"]),
        ({"BitsAllocated": 32}, ["32-bit pixels"]),
        ({"BitsAllocated": 1}, ["1-bit pixels"]),
        ({"BitsStored": 0}, ["pixels of 0 bits"]),
        ({"BitsStored": 17, "HighBit": 16}, ["pixels of 17 bits"]),
        ({"HighBit": 15}, ["pixels of 12 bits up to bit 15 of 16"]),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, ["PALETTE COLOR"]),
        ({"PhotometricInterpretation": "RGB"}, ["RGB"]),
        ({"SamplesPerPixel": 3}, ["MONOCHROME2 with 3 values"]),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, ["no grey levels"]),
        ({"RescaleSlope": "nan", "RescaleIntercept": 5}, []),
        ({"WindowCenter": 5, "WindowWidth": 0}, ["a window of width 0"]),
        ({"WindowCenter": 5, "WindowWidth": -3, "VOILUTFunction": "SIGMOID"}, ["a window of width -3"]),
        ({"WindowCenter": 5, "WindowWidth": 10, "VOILUTFunction": "CUBIC"}, ["VOI LUT function CUBIC"]),
        ({"VOILUTSequence": [build_lut(np.arange(100), 0, 4)]}, ["lookup table"]),
        ({"VOILUTSequence": [build_lut(np.arange(1000), 0, 8)]}, ["lookup table"]),
        ({"VOILUTSequence": [Dataset()]}, ["damaged"]),
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_leave_the_pixels_unknown_are_refused(elements, reasons):
    if elements == {"NumberOfFrames": 0}:
        decode_image(dicom(GREY_12, 12, **elements))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns when such a header is written
        data = dicom(GREY_12, 12, **elements)
    expect_refused(data, *reasons)


def test_a_lookup_table_shorter_than_its_header_is_refused():
    item = build_lut(np.arange(256), 0, 8, "<u2")
    item.LUTData = item.LUTData[:100]
    expect_refused(dicom(GREY_12, 12, VOILUTSequence=[item]), "lookup table")


@pytest.mark.parametrize("missing", ["Rows", "BitsStored", "PhotometricInterpretation", "SamplesPerPixel"])
def test_missing_elements_are_refused(missing):
    dataset = build_dataset(GREY)
    del dataset[missing]
    expect_refused(encode_dataset(dataset), "damaged", missing)


def test_objects_without_an_image_are_refused():
    dataset = build_dataset(GREY)
    del dataset.PixelData
    expect_refused(encode_dataset(dataset), "a DICOM file without an image")
    dataset.FloatPixelData = GREY.astype(np.float32).tobytes()
    expect_refused(encode_dataset(dataset), "floating-point pixels")


def test_an_unsupported_syntax_is_named():
    data = dicom_with_frame(b"\0\0\1\xb3" + bytes(100), uid.MPEG2MPML, GREY)
    expect_refused(data, "stored as MPEG2 Main Profile", "not supported")


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("kept_fraction", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files_are_refused(syntax, kept_fraction):
    data = compress(GREY_12, syntax, 12)
    expect_refused(data[: int(len(data) * kept_fraction)])


@pytest.mark.parametrize("kept_fraction", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("tail", [b"", b"\xff\xd9"])
def test_truncated_frames_are_refused(kept_fraction, tail):
    """Whatever repacked the file took a broken stream for a whole one."""
    pixels = draw_image(1, 200, 240)
    frame = encode_jpeg(pixels)
    cut = frame[: int(len(frame) * kept_fraction)] + tail
    expect_refused(dicom_with_frame(cut, uid.JPEGBaseline8Bit, pixels), "truncated")
    lossless = encode_jpeg_lossless(pixels)
    cut = lossless[: int(len(lossless) * kept_fraction)]
    expect_refused(dicom_with_frame(cut, uid.JPEGLosslessSV1, pixels), "truncated")


def jpeg_bomb(marker, side=65_000):
    header = struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + struct.pack(">BBH", 0xFF, marker, len(header) + 2) + header + b"\xff\xd9"


@pytest.mark.parametrize(
    ("syntax", "marker"),
    [
        (uid.JPEGBaseline8Bit, 0xC0),
        (uid.JPEGExtended12Bit, 0xC1),
        (uid.JPEGLosslessSV1, 0xC3),
        (uid.JPEGLSLossless, 0xF7),
    ],
)
def test_frames_larger_than_the_header_says_are_not_decoded(syntax, marker):
    expect_refused(
        dicom_with_frame(jpeg_bomb(marker), syntax, GREY), "65000 x 65000 px, its header says 61 x 50"
    )


def test_jpeg_2000_bombs_are_not_decoded():
    frame = (
        b"\xff\x4f\xff\x51"
        + struct.pack(">HH8I", 41, 0, 60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0)
        + bytes(50)
    )
    expect_refused(dicom_with_frame(frame, uid.JPEG2000, GREY), "60000 x 60000 px")


def test_deflated_bombs_are_not_inflated(monkeypatch):
    monkeypatch.setattr("pneumo.data.dicom._MAX_INFLATED_BYTES", 2**20)
    dataset = build_dataset(np.zeros((2000, 2000), np.uint8))
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data = encode_dataset(dataset)
    assert len(data) < 10_000
    with monkeypatch.context() as patched:
        patched.setattr(zlib, "decompress", pytest.fail)
        expect_refused(data, "too large: over 1 MB when inflated")
    monkeypatch.undo()
    assert decode_image(data).pixels.shape == (2000, 2000)


@pytest.mark.parametrize(
    ("frame", "syntax", "reason"),
    [
        (bytes(2), uid.JPEGBaseline8Bit, "no JPEG stream"),
        (encode(GREY, "PNG"), uid.JPEGBaseline8Bit, "no JPEG stream"),
        (jpeg(1), uid.JPEGBaseline8Bit, "96 x 80 px, its header says 61 x 50"),
        (b"\xff\xd8\xff\xd9", uid.JPEGLosslessSV1, "its frame has no header"),
        (b"\xff\xd8" + b"\xff" * 1000 + b"\xff\xd9", uid.JPEGLosslessSV1, "its frame has no header"),
        (encode(GREY, "PNG"), uid.JPEG2000, "no JPEG 2000 codestream"),
        (b"\xff\x4f\xff\x51", uid.JPEG2000, "damaged"),
        (bytes(100), uid.RLELossless, "damaged"),
    ],
)
def test_frames_of_another_kind_are_refused(frame, syntax, reason):
    expect_refused(dicom_with_frame(frame, syntax, GREY), reason)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("syntax", [*LOSSLESS_SYNTAXES, uid.JPEGBaseline8Bit], ids=lambda syntax: syntax.name)
def test_random_damage_ends_in_pixels_or_in_a_reason(syntax, seed):
    rng = np.random.default_rng(seed)
    data = np.frombuffer(compress(GREY, syntax), np.uint8)
    for _ in range(20):
        damaged = data.copy()
        where = rng.integers(128, damaged.size, 3)
        damaged[where] = rng.integers(0, 256, 3)
        with contextlib.suppress(UnreadableImageError):
            decoded = decode_image(damaged.tobytes())
            assert decoded.pixels.shape == (decoded.height, decoded.width)
            assert decoded.height * decoded.width <= MAX_PIXELS


def test_threads_get_the_same_pixels_and_no_warnings():
    files = [compress(GREY_12, syntax, 12) for syntax in LOSSLESS_SYNTAXES] * 3
    files += [(SHIPPED / "MR_small_padded.dcm").read_bytes(), dicom_with_frame(encode_jpeg(GREY), uid.JPEGBaseline8Bit, GREY)]  # fmt: skip # noqa: E501
    alone = [decode_image(data).pixels for data in files]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(8) as pool:
            together = [decoded.pixels for decoded in pool.map(decode_image, files)]
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("package", ["pydicom", "libjpeg", "openjpeg"])
def test_without_the_packages_the_error_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "pneumo.data.dicom", raising=False)
    monkeypatch.delattr("pneumo.data.dicom", raising=False)
    with pytest.raises(PneumoError, match=rf"{package}.*pip install 'pneumo\[dicom\]'"):
        decode_image(dicom(GREY))
    assert decode_image(jpeg(1)).pixels.shape == (80, 96)
