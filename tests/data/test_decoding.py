import contextlib
import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from hostile import draw_image, encode, exif_orientation, jpeg, odd_files, png_bomb, png_chunk
from pneumo.data.decoding import UnreadableImageError, decode_image, suspicious

GREY = draw_image(1)
COLOUR = np.dstack([GREY, draw_image(2), draw_image(3)])
LUMA = np.array([0.299, 0.587, 0.114])


def luminance(colour):
    return colour.astype(float) @ LUMA


def tiff(pixels, bits, photometric=1, sample_format=1):
    """Write an uncompressed little-endian TIFF byte by byte; pixels are already packed."""
    height, width = pixels.shape[0], pixels.shape[1] * pixels.itemsize * 8 // bits
    data = pixels.tobytes()
    short, long = 3, 4
    tags = [
        (256, long, width),
        (257, long, height),
        (258, short, bits),
        (259, short, 1),  # no compression
        (262, short, photometric),
        (273, long, 8),  # where the pixels begin
        (277, short, 1),  # samples per pixel
        (278, long, height),
        (279, long, len(data)),
        (339, short, sample_format),
    ]
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + bytes(4)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_grey_comes_back_exactly(file_format):
    decoded = decode_image(encode(GREY, file_format))
    np.testing.assert_array_equal(decoded.pixels, GREY)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.height, decoded.width) == GREY.shape
    assert decoded.mode == "L"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_rows": 1}])
def test_grey_jpeg_equals_opencv(options):
    data = jpeg(1, **options)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode_image(data).pixels, reference)


@pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"keep_rgb": True}, {"progressive": True}])
def test_colour_jpeg_is_reduced_to_luminance(options):
    data = encode(COLOUR, "JPEG", quality=95, **options)
    decoded = decode_image(data)
    assert decoded.mode == "RGB"
    np.testing.assert_allclose(decoded.pixels, luminance(COLOUR), atol=16)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decoded.pixels, reference)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_colour_is_reduced_to_luminance(file_format):
    decoded = decode_image(encode(COLOUR, file_format))
    assert decoded.mode == "RGB"
    np.testing.assert_allclose(decoded.pixels, luminance(COLOUR), atol=0.51)


def test_cmyk_jpeg_is_not_inverted():
    decoded = decode_image(encode(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=100))
    assert decoded.mode == "CMYK"
    np.testing.assert_allclose(decoded.pixels, luminance(COLOUR), atol=4)


def test_palette_and_bits_are_looked_up():
    palette = Image.fromarray(COLOUR).quantize(64)
    decoded = decode_image(encode(palette, "PNG"))
    assert decoded.mode == "P"
    colours = np.array(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)]
    np.testing.assert_allclose(decoded.pixels, luminance(colours), atol=0.51)

    bits = GREY > 128
    decoded = decode_image(encode(Image.fromarray(bits), "PNG"))
    assert decoded.mode == "1"
    np.testing.assert_array_equal(decoded.pixels, np.where(bits, 255, 0))


def test_transparent_pixels_lie_over_black():
    alpha = draw_image(4)
    visible = alpha / 255
    decoded = decode_image(encode(np.dstack([COLOUR, alpha]), "PNG"))
    assert decoded.mode == "RGBA"
    np.testing.assert_allclose(decoded.pixels, luminance(COLOUR) * visible, atol=1)

    decoded = decode_image(encode(np.dstack([GREY, alpha]), "PNG"))
    assert decoded.mode == "LA"
    np.testing.assert_allclose(decoded.pixels, GREY * visible, atol=0.51)


def test_transparent_value_becomes_black():
    value = int(GREY[40, 40])
    expected = np.where(value == GREY, 0, GREY)
    assert (expected != GREY).any()
    np.testing.assert_array_equal(decode_image(encode(GREY, "PNG", transparency=value)).pixels, expected)

    deep = GREY.astype(np.uint16) * 257
    # Pillow does not write the transparent value of a 16-bit image, so its chunk goes in by hand.
    data = encode(deep, "PNG")
    first_data = data.index(b"IDAT") - 4
    data = data[:first_data] + png_chunk(b"tRNS", struct.pack(">H", value * 257)) + data[first_data:]
    np.testing.assert_array_equal(decode_image(data).pixels, expected)


def test_16_bits_are_scaled_over_the_full_range():
    deep = np.linspace(0, 65535, GREY.size).astype(np.uint16).reshape(GREY.shape)
    expected = np.round(deep / 257)
    for data in (encode(deep, "PNG"), encode(deep, "TIFF"), tiff(deep, 16)):
        decoded = decode_image(data)
        assert decoded.mode == "I;16"
        np.testing.assert_array_equal(decoded.pixels, expected)
    np.testing.assert_array_equal(
        decode_image(tiff(deep, 16, photometric=0)).pixels, np.round((65535 - deep) / 257)
    )


def test_8_bits_with_white_as_zero_are_inverted():
    np.testing.assert_array_equal(decode_image(tiff(GREY, 8, photometric=0)).pixels, 255 - GREY)


def test_stated_12_bits_are_scaled_and_unstated_ones_are_suspicious():
    packed = np.array([[0x00, 0x0F, 0xFF, 0x80, 0x01, 0x00]], np.uint8)  # 0, 4095, 2048, 256
    np.testing.assert_array_equal(decode_image(tiff(packed, 12)).pixels, [[0, 255, 128, 16]])

    unstated = np.linspace(0, 4095, GREY.size).astype(np.uint16).reshape(GREY.shape)
    assert suspicious(decode_image(encode(unstated, "PNG")).pixels) == "nearly constant: grey levels 0 to 16"


@pytest.mark.parametrize(("sample_format", "dtype"), [(1, np.uint32), (2, np.int32), (3, np.float32)])
def test_32_bits_are_refused(sample_format, dtype):
    with pytest.raises(UnreadableImageError, match="32-bit"):
        decode_image(tiff(GREY.astype(dtype), 32, sample_format=sample_format))


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(orientation, file_format):
    options = {"lossless": True} if file_format == "WEBP" else {}
    plain = decode_image(encode(GREY, file_format, **options))
    turned = decode_image(encode(GREY, file_format, exif=exif_orientation(orientation), **options))
    np.testing.assert_array_equal(turned.pixels, UPRIGHT[orientation](plain.pixels))
    assert turned.pixels.shape == (turned.height, turned.width)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(file_format):
    frames = {"save_all": True, "append_images": [Image.fromarray(draw_image(2))]}
    with pytest.raises(UnreadableImageError, match="holds 2 frames"):
        decode_image(encode(GREY, file_format, **frames))


def test_preview_pictures_of_a_phone_are_passed_over():
    data = encode(GREY, "MPO", save_all=True, append_images=[Image.fromarray(draw_image(2, 20, 24))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    np.testing.assert_array_equal(decode_image(data).pixels, decode_image(jpeg(1)).pixels)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept_fraction", [0.02, 0.2, 0.5, 0.9, 0.98])
def test_truncated_files_are_refused(file_format, kept_fraction):
    data = encode(GREY, file_format)
    with pytest.raises(UnreadableImageError):
        decode_image(data[: int(len(data) * kept_fraction)])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_truncated_compressed_tiff_is_refused(compression):
    data = encode(GREY, "TIFF", compression=compression)
    np.testing.assert_allclose(decode_image(data).pixels, GREY, atol=12)
    with pytest.raises(UnreadableImageError):
        decode_image(data[:-10])


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_refused_wherever_it_ends(colour, progressive):
    data = encode(COLOUR if colour else GREY, "JPEG", progressive=progressive)
    decode_image(data)
    for end in range(1, len(data), 7):
        with pytest.raises(UnreadableImageError):
            decode_image(data[:end])


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 5}, {"quality": 95}])
def test_jpeg_is_never_padded(options):
    """A cut file that ends properly, or in zeros, is decoded with grey or noise where its data ran out."""
    data = jpeg(1, **options)
    scan = data.index(b"\xff\xda") + 10
    for end in range(scan, len(data) - 40, 7):
        for tail in (b"\xff\xd9", bytes(len(data) - end), bytes(100_000)):
            with pytest.raises(UnreadableImageError, match="truncated"):
                decode_image(data[:end] + tail)


def test_grey_level_of_padding_is_fine_where_it_is_real():
    middle = np.full((80, 96), 128, np.uint8)
    for progressive in (False, True):
        np.testing.assert_array_equal(
            decode_image(encode(middle, "JPEG", progressive=progressive)).pixels, middle
        )


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (9, 17), (1, 300)])
def test_jpeg_of_any_shape(shape):
    image = draw_image(1, *shape)
    np.testing.assert_allclose(decode_image(encode(image, "JPEG", quality=100)).pixels, image, atol=3)


def test_damage_in_a_png_is_found_everywhere():
    data = encode(GREY, "PNG")
    for position in range(30, len(data) - 12, 97):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(UnreadableImageError):
            decode_image(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not a readable JPEG"),
        (b"\xff\xd8\xff", "not a readable JPEG"),
        (jpeg(1)[:900], "truncated"),
        (png_bomb(60_000, 60_000), "too large"),
        (png_bomb(10_001, 10_000), r"too large: 10001 x 10000 px \(limit 100 megapixels\)"),
        (png_bomb(10_000, 10_000), "truncated"),
    ],
)
def test_reasons_are_plain(data, reason):
    with pytest.raises(UnreadableImageError, match=f"^{reason}"):
        decode_image(data)


@pytest.mark.parametrize("file_format", ["GIF", "PPM", "ICO", "JPEG2000", "EPS"])
def test_other_formats_are_refused(file_format):
    with pytest.raises(UnreadableImageError, match="not a readable JPEG, PNG, BMP, TIFF, WebP or DICOM"):
        decode_image(encode(GREY, file_format))


@pytest.mark.parametrize("name", odd_files())
def test_odd_files_are_read(name):
    decoded = decode_image(odd_files()[name])
    assert decoded.pixels.shape == (decoded.height, decoded.width)


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_ends_in_pixels_or_in_a_reason(seed):
    rng = np.random.default_rng(seed)
    for data in odd_files().values():
        damaged = np.frombuffer(data, np.uint8).copy()
        where = rng.integers(0, damaged.size, 3)
        damaged[where] = rng.integers(0, 256, 3)
        with contextlib.suppress(UnreadableImageError):
            decoded = decode_image(damaged.tobytes())
            assert decoded.pixels.shape == (decoded.height, decoded.width)


def test_pillow_warnings_do_not_leak_and_filters_stay():
    corrupt_exif = odd_files()["train/NORMAL/corrupt_exif.jpeg"]
    with pytest.warns(UserWarning, match="(?i)exif"):
        Image.open(io.BytesIO(corrupt_exif)).getexif()
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode_image, [corrupt_exif] * 40))
    assert warnings.filters == before


def test_threads_get_the_same_pixels():
    files = [jpeg(seed) for seed in range(40)]
    alone = [decode_image(data).pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = [decoded.pixels for decoded in pool.map(decode_image, files)]
    np.testing.assert_array_equal(together, alone)


def test_suspicious():
    assert suspicious(GREY) is None
    assert suspicious(np.zeros((200, 200), np.uint8)) == "nearly constant: grey levels 0 to 0"
    assert suspicious(np.tile(np.array([0, 17], np.uint8), (200, 100))) is None
    assert suspicious(draw_image(1, 31, 400)) == "small: 400 x 31 px"
