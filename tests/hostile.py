"""A small data set in Kaggle's layout with everything in it that may go wrong with a file."""

import io
import os
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

PROCESSED, QUARANTINED = "processed", "quarantined"

_MIDDLE = 64
_OUTSIDE_NAME = "outside.txt"


def draw_image(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    """Draw soft random shapes: uint8 array of shape (height, width), different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: np.ndarray | Image.Image, file_format: str, **options: object) -> bytes:
    """Encode with Pillow; the options are those of `Image.save`."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def jpeg(seed: int, **options: object) -> bytes:
    """Encode a grey JPEG that differs for every seed."""
    return encode(draw_image(seed), "JPEG", **options)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int, height: int) -> bytes:
    """Build a PNG of a few bytes whose header claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8-bit grey
    body = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + png_chunk(b"IEND", b"")


def exif_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def good_files() -> dict[str, bytes]:
    """Return well-formed files: of each subtype 10 patients in train, 2 in val and 5 in test."""
    files = {}
    for split, first_patient, n_patients in (("train", 1, 10), ("val", 101, 2), ("test", 201, 5)):
        for patient in range(first_patient, first_patient + n_patients):
            views = (1, 2) if patient % 3 == 0 else (1,)
            for view in views:
                files[f"{split}/NORMAL/IM-{patient:04d}-{view:04d}.jpeg"] = jpeg(1000 + 10 * patient + view)
                for seed, cause in ((4000, "bacteria"), (7000, "virus")):
                    name = f"{split}/PNEUMONIA/person{patient}_{cause}_{patient * 10 + view}.jpeg"
                    files[name] = jpeg(seed + 10 * patient + view)
    return files


def odd_files() -> dict[str, bytes]:
    """Return files that look odd and are still images that can be used."""
    grey = draw_image(1)
    colour = np.dstack([grey, draw_image(2), draw_image(3)])
    translucent = np.dstack([colour, draw_image(4)])
    palette = Image.fromarray(colour).quantize(32)
    train_copy, test_copy = jpeg(50), jpeg(51)
    normal = {
        "cmyk-0.jpeg": encode(Image.fromarray(colour).convert("CMYK"), "JPEG"),
        "16bit.png": encode(grey.astype(np.uint16) * 257, "PNG"),
        "rgba.png": encode(translucent, "PNG"),
        "la.png": encode(np.dstack([grey, draw_image(5)]), "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette_transparent.png": encode(palette, "PNG", transparency=3),
        "1bit.png": encode(Image.fromarray(grey).convert("1"), "PNG"),
        "rotated.jpeg": jpeg(6, exif=exif_orientation(6)),
        "mirrored.jpeg": jpeg(7, exif=exif_orientation(2)),
        "corrupt_exif.jpeg": jpeg(8, exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff"),
        "progressive.jpeg": jpeg(9, progressive=True),
        "rgb.jpeg": encode(colour, "JPEG"),
        "bytes_after_the_end.jpeg": jpeg(10) + b"trailer",
        "bitmap.bmp": encode(grey, "BMP"),
        "tagged.tiff": encode(draw_image(11), "TIFF", compression="tiff_lzw"),
        "web.webp": encode(draw_image(12), "WEBP", lossless=True),
        "IM-0901-0001.JPEG": jpeg(13),
        "png_inside.jpeg": encode(draw_image(14), "PNG"),
        "no pattern in this name.jpeg": jpeg(15),
        "Röntgen 胸部 №5 🫁.jpeg": jpeg(16),
        'comma, "quotes"; and\nnew line.jpeg': jpeg(17),
        "-rf.jpeg": jpeg(18),
        "%2e%2e%2f{braces}$HOME.jpeg": jpeg(19),
        f"{'long' * 50}.jpeg": jpeg(20),
        "below/and below/IM-0902-0001.jpeg": jpeg(21),
        "folder.jpeg/IM-0903-0001.jpeg": jpeg(22),
        "IM-0904-0001.jpeg": train_copy,
        "IM-0905-0001.jpeg": train_copy,
        "IM-0906-0001.jpeg": test_copy,
        "black.png": encode(np.zeros((80, 96), np.uint8), "PNG"),
        "one_pixel.png": encode(np.full((1, 1), 90, np.uint8), "PNG"),
        "ribbon.jpeg": encode(draw_image(23, height=20, width=2000), "JPEG"),
    }
    files = {f"train/NORMAL/{name}": content for name, content in normal.items()}
    return files | {
        "test/NORMAL/IM-0907-0001.jpeg": test_copy,
        "train/PNEUMONIA/unknown_cause.jpeg": jpeg(24),
    }


def bad_files() -> dict[str, bytes]:
    """Return files that cannot be used."""
    whole_jpeg, whole_png = jpeg(30), encode(draw_image(31), "PNG")
    middle = len(whole_jpeg) // 2
    frames = {"save_all": True, "append_images": [Image.fromarray(draw_image(32))]}
    normal = {
        "truncated.jpeg": whole_jpeg[:middle],
        "truncated_but_ended.jpeg": whole_jpeg[:middle] + b"\xff\xd9",
        "overwritten_with_zeros.jpeg": whole_jpeg[:middle] + bytes(100_000),
        "truncated.png": whole_png[: len(whole_png) // 2],
        "bit_rot.png": whole_png[:_MIDDLE] + bytes([whole_png[_MIDDLE] ^ 1]) + whole_png[_MIDDLE + 1 :],
        "truncated.webp": encode(draw_image(33), "WEBP")[:_MIDDLE],
        "empty.jpeg": b"",
        "text.jpeg": b"This is a chest X-ray.\n",
        "page.png": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "bomb.png": png_bomb(60_000, 60_000),
        "large.png": png_bomb(11_000, 11_000),
        "float.tiff": encode(draw_image(34).astype(np.float32), "TIFF"),
        "pages.tiff": encode(draw_image(35), "TIFF", **frames),
        "animated.webp": encode(draw_image(36), "WEBP", **frames),
        "palette.gif": encode(draw_image(37), "GIF"),
        "gif_inside.jpeg": encode(draw_image(38), "GIF", **frames),
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "notes.txt": b"taken on a Monday",
        ".DS_Store": b"\x00\x00\x00\x01Bud1",
        "._IM-0001-0001.jpeg": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
        "person77_virus_900.jpeg": jpeg(39),
    }
    files = {f"train/NORMAL/{name}": content for name, content in normal.items()}
    return files | {
        "train/COVID/covid_1.jpeg": jpeg(40),
        "train/no_class_folder.jpeg": jpeg(41),
        "test/PNEUMONIA/empty.jpeg": b"",
    }


def _expect_ordinary() -> dict[str, str]:
    expected = dict.fromkeys(good_files() | odd_files(), PROCESSED) | dict.fromkeys(bad_files(), QUARANTINED)
    expected["train/NORMAL/IM-0906-0001.jpeg"] = (
        QUARANTINED  # readable, but its content is in the test set too
    )
    return expected


def write_hostile_folder(folder: Path) -> dict[str, str]:
    """Fill an empty folder with good, odd and bad files.

    Returns:
        What must become of each file: relative path -> "processed" or "quarantined".
    """
    expected = _expect_ordinary()
    for name, content in (good_files() | odd_files() | bad_files()).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "train" / "NORMAL" / "empty_folder.jpeg").mkdir()
    (folder / "README.md").write_text("outside of the splits, left alone")

    normal = folder / "train" / "NORMAL"
    outside = folder.parent / _OUTSIDE_NAME
    outside.write_text("not for you")
    (normal / "link_outside.jpeg").symlink_to(outside)
    (normal / "link_nowhere.jpeg").symlink_to("nowhere")
    (normal / "link_to_itself.jpeg").symlink_to("link_to_itself.jpeg")
    (normal / "link_to_parent").symlink_to("..")
    os.mkfifo(normal / "pipe.jpeg")
    special = ("link_outside.jpeg", "link_nowhere.jpeg", "link_to_itself.jpeg", "link_to_parent", "pipe.jpeg")
    return expected | {f"train/NORMAL/{name}": QUARANTINED for name in special}


def write_hostile_zip(path: Path) -> dict[str, str]:
    """Write an archive of the same files, and of entries that only an archive can have.

    Returns:
        What must become of each entry: its name -> "processed" or "quarantined".
    """
    content = jpeg(60)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the name that comes twice
        for name, ordinary in (good_files() | odd_files() | bad_files()).items():
            archive.writestr(name, ordinary)
        archive.writestr("README.md", "outside of the splits, left alone")
        archive.writestr("__MACOSX/train/NORMAL/._IM-0001-0001.jpeg", b"\x00\x05\x16\x07")

        rejected = [
            "../evil.jpeg",
            "../../../../../../../../evil.jpeg",
            "train/NORMAL/../../../evil.jpeg",
            "/evil.jpeg",
            "C:/evil.jpeg",
            "..\\evil.jpeg",
            "\\\\server\\share\\evil.jpeg",
            f"train/NORMAL/{'x' * 300}.jpeg",
            f"train/NORMAL/{'deep/' * 300}IM-0001-0001.jpeg",
            "train/NORMAL/IM-0001-0001.jpeg/inside_a_file.jpeg",
            "TRAIN/normal/IM-0001-0001.jpeg",
        ]
        for name in rejected:
            archive.writestr(name, content)

        def add(name: str, data: bytes = content, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, data)
            rejected.append(name)
            return info

        add("train/NORMAL/link.jpeg", b"/etc/passwd", stat.S_IFLNK | 0o777)
        add("train/NORMAL/linked_folder", b"..", stat.S_IFLNK | 0o777)
        archive.writestr("train/NORMAL/linked_folder/IM-0908-0001.jpeg", jpeg(61))
        add("train/NORMAL/device.jpeg", b"", stat.S_IFCHR | 0o666)
        add("train/NORMAL/pipe.jpeg", b"", stat.S_IFIFO | 0o666)
        add("train/NORMAL/bomb.bmp", bytes(20_000_000))
        add("train/NORMAL/encrypted.jpeg").flag_bits |= 0x1
        add("train/NORMAL/wrong_checksum.jpeg").CRC ^= 1
        add("train/NORMAL/says_less.jpeg").file_size -= 10
        add("train/NORMAL/says_more.jpeg").file_size += 10
        add("train/NORMAL/unknown_method.jpeg").compress_type = 99
    expected = _expect_ordinary()
    expected["train/NORMAL/linked_folder/IM-0908-0001.jpeg"] = PROCESSED
    return expected | dict.fromkeys((name.replace("\\", "/") for name in rejected), QUARANTINED)
