import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_report import GREY, make_gallery, make_manifest, make_sheet

from pneumo.report import photos


def decode(address):
    kind, _, content = address.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), float)


def test_a_photograph_keeps_its_grey_values():
    pixels = np.tile(np.linspace(20, 230, 96, dtype=np.uint8), (96, 1))
    decoded = decode(photos.encode_photo(pixels))
    assert decoded.shape == (96, 96, 3)
    assert np.abs(decoded.mean(axis=2) - pixels).mean() < 4


def test_a_large_photograph_is_shrunk_and_keeps_its_shape():
    assert decode(photos.encode_photo(np.zeros((400, 200), np.uint8))).shape == (144, 72, 3)


def test_the_same_pixels_give_the_same_bytes():
    assert photos.encode_photo(GREY) == photos.encode_photo(GREY.copy())


def test_a_map_colours_only_where_there_is_attention():
    pixels = np.full((8, 8), 100, np.uint8)
    attention = np.zeros((8, 8), np.uint8)
    attention[:, 4:] = 255
    overlay = photos.overlay_map(pixels, attention)
    assert overlay.dtype == np.uint8
    assert (overlay[:, :4] == 100).all()
    right = overlay[0, -1].astype(int)
    assert right.max() - right.min() > 50


def test_no_attention_leaves_the_image():
    pixels = np.full((8, 8), 100, np.uint8)
    assert (photos.overlay_map(pixels, np.zeros_like(pixels)) == 100).all()


def test_a_gallery_shows_each_image_with_its_maps_by_group():
    gallery = make_gallery()
    assert list(gallery.groups) == ["certain and right", "certain and wrong", "undecided"]
    (wrong,) = gallery.groups["certain and wrong"]
    assert wrong.caption == "normal, called pneumonia (0.98)"
    assert "normal, called pneumonia" in wrong.plain.alt
    assert list(wrong.maps) == ["Grad-CAM"]
    assert wrong.maps["Grad-CAM"].address != wrong.plain.address


def test_pictures_of_a_sheet_go_to_their_image_and_map():
    """Row 0 is dark under full attention to the left map, row 1 bright under full attention to the right."""
    cells = np.array([[40, 255, 0], [200, 0, 255]], np.uint8)
    table = pd.DataFrame(
        {
            "group": ["a", "b"],
            "actual": "normal",
            "predicted": "normal",
            "probability": 0.9,
            "maps": "left, right",
        }
    )
    sheet = make_sheet(np.kron(cells, np.ones((16, 16), np.uint8)))
    for image, grey, strong, weak in zip(
        photos.show_gallery("raw/cnn/0", sheet, table).images,
        (40, 200),
        ("left", "right"),
        ("right", "left"),
        strict=True,
    ):
        assert list(image.maps) == ["left", "right"]
        assert np.abs(decode(image.plain.address).astype(float) - grey).max() < 4
        assert np.abs(decode(image.maps[weak].address).astype(float) - grey).max() < 4
        assert np.ptp(decode(image.maps[strong].address).mean(axis=(0, 1))) > 30  # it is coloured


def test_every_combo_shows_the_same_training_images():
    marked = np.tile(np.arange(50, 56, dtype=np.uint8).reshape(3, 2, 1, 1), (1, 1, 16, 16))
    rows = photos.show_combos(
        {"raw": marked, "half": marked // 2}, make_manifest(), {"raw": "as is", "half": "halved"}
    )
    assert [(row.heading, row.text) for row in rows] == [("raw", "as is"), ("half", "halved")]
    values = [[decode(photo.address).mean() for photo in row.photos] for row in rows]
    np.testing.assert_allclose(values[0], range(50, 56), atol=2)
    np.testing.assert_allclose(values[1], np.array(values[0]) // 2, atol=2)
    assert [photo.alt.split(", ")[1] for photo in rows[0].photos] == ["normal"] * 2 + ["bacterial"] * 2 + [
        "viral"
    ] * 2


def test_samples_are_named_by_subtype_and_empty_places_left_out():
    manifest = pd.DataFrame(
        {"split": ["train", "train", "test"], "subtype": ["normal", "viral", "bacterial"]}
    )
    samples = np.zeros((2, 3, 8, 8), np.uint8)
    samples[0, :2] = samples[1, :1] = 90
    rows = photos.show_samples(samples, manifest)
    assert [(row.heading, len(row.photos)) for row in rows] == [("normal", 2), ("viral", 1)]


def test_samples_of_other_subtypes_than_the_manifests_are_an_error():
    manifest = pd.DataFrame({"split": ["train"], "subtype": ["normal"]})
    with pytest.raises(ValueError, match=r"shorter|longer"):
        photos.show_samples(np.zeros((2, 1, 8, 8), np.uint8), manifest)
