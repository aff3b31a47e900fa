"""The page in a real browser: what a person clicks, types and sees, and what the browser asks for."""

import csv
import time

import numpy as np
import pytest
from PIL import Image

from browser import BROWSER, DESKTOP, PHONE, Browser
from hostile import jpeg
from serving import Server

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium or Chrome; `make browser` installs Debian's"
)
HAS_ROWS = "document.querySelectorAll('#rows tr').length === {}"
IS_IDLE = "document.body.getAttribute('aria-busy') === 'false'"


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """Serve a network in Keras and ONNX."""
    server = Server.start(exported / "both.pneumo", tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, server):
    """Open the page; at the end nothing has been complained of, and nothing asked for elsewhere."""
    browser.set_size(DESKTOP)
    browser.set_scheme("light")
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(server.url)
    browser.wait_for("document.querySelectorAll('#examples button').length === 4")
    yield browser
    assert browser.complaints == []
    assert all(url.startswith((server.url + "/", "data:", "blob:")) for url in browser.requests)
    assert len(browser.requests) > 5


@pytest.fixture
def files(tmp_path):
    """Write two images, and a text, whose name is markup."""
    paths = [tmp_path / name for name in ("one.jpeg", "two.jpeg", "<img src=x onerror=alert(1)>.jpeg")]
    for path, content in zip(paths, (jpeg(1), jpeg(2), b"no image"), strict=True):
        path.write_bytes(content)
    return paths


def predict(page, files):
    before = page.evaluate("document.querySelectorAll('#rows tr').length")
    page.choose_files("#files", files)
    page.wait_for(HAS_ROWS.format(before + len(files)))
    page.wait_for(IS_IDLE)


def test_a_broken_page_would_be_noticed(browser, server):
    browser.complaints.clear()
    browser.open(server.url + "/health")
    browser.evaluate("void setTimeout(() => undefined_function(), 0)")
    browser.evaluate("void fetch('https://example.org').catch(() => 0)")
    browser.wait_for("true")
    browser.evaluate("new Promise((resume) => setTimeout(resume, 300))")
    assert any("undefined_function is not defined" in each for each in browser.complaints)
    assert any("Content Security Policy" in each for each in browser.complaints)


def test_what_is_in_plain_sight(page):
    text = page.read("body")
    assert "Not a medical device." in page.read("header")
    assert "Synthetic chest phantoms" in text
    assert "tiny/raw/cnn/0" in text
    assert "ROC AUC" in page.read("#metrics")
    assert not page.is_shown("#result")
    assert not page.is_shown("#all")


def test_one_image(page, server, files):
    predict(page, files[:1])
    (expected,) = server.predict(files[0].read_bytes())
    verdict = page.read("#verdict")
    assert verdict.lower() == expected["text"].lower()
    probability = expected["probabilities"]["pneumonia"]
    bar = page.evaluate("document.querySelector('.track').getAttribute('aria-label')")
    assert bar == (
        f"Calibrated probability of pneumonia: {100 * probability:.1f} %, "
        f"threshold {100 * expected['threshold']:.1f} %"
    )
    shown = page.evaluate(
        "[document.querySelector('.fill'), document.querySelector('.mark')].map((each) =>"
        "{const box = each.getBoundingClientRect(), track = each.parentElement.getBoundingClientRect();"
        " const at = each.className === 'fill' ? box.right : box.left + box.width / 2;"
        " return (at - track.left) / track.width})"
    )
    np.testing.assert_allclose(shown, [probability, expected["threshold"]], atol=0.02)
    assert page.is_shown("#warning") == expected["unlike"]
    size = "[document.querySelector('#seen').naturalWidth, document.querySelector('#under').naturalWidth]"
    assert page.evaluate(size) == [32, 32]


def test_the_map_lies_over_the_image_as_strongly_as_one_likes(page, files):
    predict(page, files[:1])
    page.wait_for("!document.querySelector('#map').hidden")
    assert page.evaluate("document.querySelector('#map').naturalWidth") == 32
    boxes = page.evaluate(
        "['under', 'map'].map((id) => {const box = document.getElementById(id).getBoundingClientRect();"
        " return [box.left, box.top, box.width, box.height]})"
    )
    np.testing.assert_allclose(boxes[0], boxes[1], atol=1)
    opacity = "Number(getComputedStyle(document.querySelector('#map')).opacity)"
    assert page.evaluate(opacity) == 0.5
    page.evaluate("document.querySelector('#opacity').focus()")
    for _ in range(10):
        page.press("ArrowRight")
    assert page.evaluate(opacity) == pytest.approx(0.6)


def test_several_images_give_a_table_to_download(page, server, files, tmp_path):
    predict(page, files)
    answers = server.predict(*(path.read_bytes() for path in files))
    rows = page.evaluate(
        "[...document.querySelectorAll('#rows tr')].map((row) => row.innerText.split('\\t'))"
    )
    assert [row[0] for row in rows] == [path.name for path in files]
    assert [row[1] for row in rows] == [answers[0]["label"], answers[1]["label"], "-"]
    assert "not read: not a readable" in rows[2][4]
    assert page.evaluate("document.querySelectorAll('main img[onerror]').length") == 0
    folder = tmp_path / "downloads"
    folder.mkdir()
    page.allow_downloads(folder)
    page.click("#download")
    end = time.monotonic() + 20
    while not (folder / "predictions.csv").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    with (folder / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [path.name for path in files]
    for row, answer in zip(table[:2], answers, strict=False):
        assert float(row["p_pneumonia"]) == pytest.approx(answer["probabilities"]["pneumonia"], abs=1e-6)
        assert row["label"] == answer["label"]
        assert row["unlike"] == str(answer["unlike"]).lower()
    assert table[2]["error"].startswith("not a readable")
    # A row shows its image again.
    page.click("#rows tr:nth-child(3) button")
    assert "Not read: not a readable" in page.read("#warning")
    assert page.read("#verdict") == ""
    page.click("#rows tr:nth-child(2) button")
    assert page.read("#name") == "two.jpeg"
    assert page.read("#verdict").lower() == answers[1]["text"].lower()


def test_an_example(page):
    page.evaluate("document.querySelectorAll('#examples button')[1].click()")
    page.wait_for(HAS_ROWS.format(1))
    assert page.read("#name") == "drawing_bacterial.png"
    assert "the probability of pneumonia is 0." in page.read("#verdict")


def test_an_image_unlike_those_of_training_gets_a_warning(page, server, tmp_path):
    examples = [server.get(f"/v1/examples/drawing_{name}.png")[1] for name in ("normal", "viral")]
    contents = [*examples, *map(jpeg, range(4))]
    paths = [tmp_path / f"{i}.png" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    predict(page, paths)
    expected = [answer["unlike"] for answer in server.predict(*contents)]
    assert set(expected) == {False, True}
    for number, is_unlike in enumerate(expected, start=1):
        page.click(f"#rows tr:nth-child({number}) button")
        assert page.is_shown("#warning") == is_unlike
        assert ("unlike the training images" in page.read(f"#rows tr:nth-child({number})")) == is_unlike
        if is_unlike:
            assert "This image is unlike those that the model was trained on." in page.read("#warning")


def test_reset(page, files):
    predict(page, files)
    page.click("#reset")
    assert not page.is_shown("#result")
    assert not page.is_shown("#all")
    predict(page, files[1:2])
    assert page.read("#name") == "two.jpeg"


def test_dropping_files(page):
    page.evaluate(
        "fetch('v1/examples/noise.png').then((each) => each.blob()).then((blob) => {"
        " const data = new DataTransfer(); data.items.add(new File([blob], 'dropped.png'));"
        " document.querySelector('#drop').dispatchEvent("
        "   new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})); })"
    )
    page.wait_for(HAS_ROWS.format(1))
    assert page.read("#name") == "dropped.png"


def test_the_keyboard_alone(page):
    """The file box comes first, then the examples; Enter predicts one, and its row can be pressed too."""
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "drawing normal"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.press("Enter")
    page.wait_for(HAS_ROWS.format(1))
    for _ in range(12):
        page.press("Tab")
        if page.evaluate("document.activeElement.closest('#rows') !== null"):
            break
    assert page.evaluate("document.activeElement.textContent") == "drawing_normal.png"
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "result-heading"
    unnamed = "[...document.querySelectorAll('button, input, img')].filter((each) => !each.textContent"
    unnamed += " && !each.alt && each.alt !== '' && !(each.labels || []).length).length"
    assert page.evaluate(unnamed) == 0


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_drawn(page, files, scheme, size, tmp_path):
    page.set_size(size)
    page.set_scheme(scheme)
    predict(page, files)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.screenshot(tmp_path / "page.png")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"), float)
    paper = np.median(pixels)
    assert paper > 240 if scheme == "light" else paper < 40
    dark_on_light = np.quantile(pixels, 0.01) < 80
    light_on_dark = np.quantile(pixels, 0.99) > 180
    assert dark_on_light
    assert light_on_dark


def test_the_description_of_the_interface_works_without_anything_from_elsewhere(browser, server):
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(server.url + "/docs")
    browser.wait_for("document.querySelectorAll('.opblock').length === 5")
    assert browser.complaints == []
    assert all(url.startswith((server.url + "/", "data:")) for url in browser.requests)
