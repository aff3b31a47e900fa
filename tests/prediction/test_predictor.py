"""A bundle in use: the answers of training, whatever the file's format and whatever runs the network."""

import io
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from hostile import bad_files, odd_files
from pneumo.base.config import load_params
from pneumo.base.errors import PneumoError
from pneumo.base.tables import read_predictions
from pneumo.cli import main
from pneumo.data.decoding import UnreadableImageError, decode_image
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import fit_rule
from pneumo.prediction import predictor as predictor_module
from pneumo.prediction.bundle import KERAS, ONNX, Bundle
from pneumo.prediction.keras_network import KerasNetwork, convert_to_onnx
from pneumo.prediction.onnx_network import OnnxNetwork
from pneumo.prediction.predictor import BATCH_SIZE, Predictor, choose_format, list_images, read_ahead

FORMATS = [KERAS, ONNX]


def load(exported, suffix):
    return Predictor(Bundle(exported / "both.pneumo"), suffix)


@pytest.fixture(scope="module", params=FORMATS)
def predictor(exported, request):
    return load(exported, request.param)


@pytest.fixture(scope="module")
def predictions(exported):
    return read_predictions(exported / "models/tiny/raw/cnn/0/predictions.csv")


def encode_dicom(pixels):
    """Encode as a DICOM file of 8 bits in the smallest form that the decoder takes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256  # the whole range as it is
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_as(suffix, source, target):
    """Write an image's grey values in another format, so that every decoder must find the same ones."""
    pixels = decode_image(source.read_bytes()).pixels
    path = target.with_suffix(suffix)
    if suffix == ".tiff":
        Image.fromarray(pixels.astype(np.uint16) * 257).save(path, compression="tiff_lzw")
    elif suffix == ".png":
        Image.fromarray(pixels).save(path)
    elif suffix == ".dcm":
        path.write_bytes(encode_dicom(pixels))
    else:
        shutil.copyfile(source, path)
    return path


@pytest.mark.parametrize("suffix", [".jpeg", ".png", ".tiff", ".dcm"])
def test_probabilities_are_those_of_training_calibrated(
    exported, predictor, predictions, monkeypatch, suffix, tmp_path
):
    monkeypatch.chdir(exported)
    rule = fit_rule(select_scores(predictions, "val"), load_params().threshold)
    test = predictions[predictions["split"] == "test"]
    originals = [Path("data/raw/phantom", each) for each in test["id"]]
    paths = [write_as(suffix, path, tmp_path / f"{i}") for i, path in enumerate(originals)] * 3
    assert len(paths) > BATCH_SIZE
    found = list(predictor.predict(paths))
    assert [each.path for each in found] == paths
    raw = np.tile(test[["p_normal", "p_pneumonia"]].to_numpy(), (3, 1))
    probabilities = np.array([each.verdict.probabilities["pneumonia"] for each in found])
    np.testing.assert_allclose(probabilities, rule.calibrate(raw)[:, 1], atol=1e-4)
    decided = np.where(raw[:, 1] >= rule.threshold, "pneumonia", "normal")
    # The decision shown is the one of training, and the one that the shown threshold gives.
    threshold = found[0].verdict.threshold
    clear = np.abs(probabilities - threshold) > 1e-4
    assert clear.mean() > 0.8
    labels = np.array([each.verdict.label for each in found])
    assert (labels == decided)[clear].all()
    assert (np.where(probabilities >= threshold, "pneumonia", "normal") == labels)[clear].all()


def test_both_ways_to_run_a_network_give_the_same_novelty(exported):
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32), dtype=np.uint8)
    ours, theirs = ([each.novelty for each in load(exported, suffix).judge(images)] for suffix in FORMATS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert np.ptp(ours) > 0


def find_error(content):
    try:
        decode_image(content)
    except UnreadableImageError as error:
        return str(error)
    return None


def test_files_that_cannot_be_read_are_named_in_their_place(predictor, tmp_path):
    contents = odd_files() | bad_files()
    paths = []
    for number, content in enumerate(contents.values()):
        paths.append(tmp_path / f"{number}.jpeg")
        paths[-1].write_bytes(content)
    paths += [tmp_path, tmp_path / "gone"]
    found = list(predictor.predict(paths))
    assert [each.path for each in found] == paths
    for prediction, content in zip(found, contents.values(), strict=False):
        error = find_error(content)
        assert prediction.error == error
        if error:
            assert prediction.verdict is None
        else:
            assert prediction.image.shape == (32, 32)
            assert sum(prediction.verdict.probabilities.values()) == pytest.approx(1)
    assert [each.error for each in found[-2:]] == ["Is a directory", "No such file or directory"]


def test_no_file_gives_no_prediction(predictor):
    assert list(predictor.predict([])) == []


def test_few_files_are_read_ahead():
    started, lock = [], threading.Lock()

    def work(item):
        with lock:
            started.append(item)
        return item * 10

    with ThreadPoolExecutor(4) as pool:
        results = read_ahead(pool, work, range(1000), 8)
        for number, result in enumerate(results):
            assert result == number * 10
            time.sleep(0.0005)
            assert len(started) <= number + 9
    assert len(started) == 1000


def test_files_are_decoded_while_the_network_runs(exported, monkeypatch):
    predictor = load(exported, ONNX)
    path = next((exported / "data/raw/phantom/test/NORMAL").iterdir())
    pause_s, n_batches = 0.3, 4
    paths = [path] * BATCH_SIZE * n_batches
    decode, judge = predictor.preprocess, predictor.judge

    def decode_slowly(data):
        time.sleep(pause_s * (predictor_module.os.cpu_count() or 1) / BATCH_SIZE)
        return decode(data)

    def judge_slowly(images):
        time.sleep(pause_s)
        return judge(images)

    monkeypatch.setattr(predictor, "preprocess", decode_slowly)
    monkeypatch.setattr(predictor, "judge", judge_slowly)

    def predict_one_after_the_other():
        with ThreadPoolExecutor(predictor_module.os.cpu_count()) as pool:
            images = list(pool.map(lambda each: predictor.preprocess(each.read_bytes()), paths))
        for start in range(0, len(images), BATCH_SIZE):
            predictor.judge(np.stack(images[start : start + BATCH_SIZE]))

    def measure(function):
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    # Side by side, so that a busy machine slows both.
    assert measure(lambda: list(predictor.predict(paths))) < 0.85 * measure(predict_one_after_the_other)


def test_formats_are_chosen_by_what_is_there(exported, monkeypatch):
    both, model, onnx = (Bundle(exported / f"{name}.pneumo") for name in ("both", "model", "onnx"))
    assert [choose_format(each) for each in (both, model, onnx)] == [ONNX, KERAS, ONNX]
    monkeypatch.setattr(predictor_module.importlib.util, "find_spec", lambda _: None)
    assert [choose_format(each) for each in (both, model)] == [KERAS, KERAS]
    with pytest.raises(PneumoError, match=r"Expected ONNX Runtime\. Received: none"):
        choose_format(onnx)


def test_a_network_that_resizes_goes_to_onnx(exported, tmp_path, monkeypatch):
    root = tmp_path / "project"
    shutil.copytree(exported, root)
    monkeypatch.chdir(root)
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(
        text.replace("cnn: {network: {input_size_px: 32", "cnn: {network: {input_size_px: 20")
    )
    assert main(["train", "--combo", "raw", "--model", "cnn", "--seed", "0"]) == 0
    assert main(["export", "x.pneumo", "--run", "raw/cnn/0", "--onnx"]) == 0
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32), dtype=np.uint8)
    ours, theirs = (Predictor(Bundle(root / "x.pneumo"), suffix).judge(images) for suffix in FORMATS)
    for one, other in zip(ours, theirs, strict=True):
        assert one.probabilities["normal"] == pytest.approx(other.probabilities["normal"], abs=1e-4)
        assert one.novelty == pytest.approx(other.novelty, rel=1e-3)


class TestListImages:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("in/below").mkdir(parents=True)
        for name in ("in/b.png", "in/below/a.TIFF", "in/c.txt", "in/[x].png"):
            Path(name).write_bytes(b"")

    def test_folders_files_and_patterns(self):
        assert list_images(["in"]) == [Path("in/[x].png"), Path("in/b.png"), Path("in/below/a.TIFF")]
        assert list_images(["in/c.txt", "gone.png"]) == [Path("in/c.txt"), Path("gone.png")]
        assert list_images(["in/*.png", "in/**/*.TIFF"]) == [
            Path("in/[x].png"),
            Path("in/b.png"),
            Path("in/below/a.TIFF"),
        ]
        assert list_images(["in/[x].png"]) == [Path("in/[x].png")]
        assert list_images(["in/*"]) == [Path("in/[x].png"), Path("in/b.png"), Path("in/c.txt")]

    @pytest.mark.parametrize("name", ["in/*.gif", "*/nothing/**"])
    def test_patterns_without_a_file(self, name):
        with pytest.raises(PneumoError, match="Expected files that match"):
            list_images([name])


def test_opencv_leaves_the_threads_to_the_predictor(exported):
    load(exported, ONNX)
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_averages_over_mirror_images(seed):
    keras.utils.set_random_seed(seed)
    inner_input = keras.Input((16, 16, 1), dtype="uint8")
    x = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inner_input))
    probability = keras.layers.Dense(1, activation="sigmoid", name="probability")(keras.layers.Flatten()(x))
    inner = keras.Model(inner_input, probability, name="unflipped")
    images = keras.Input((16, 16, 1), dtype="uint8")
    mirrored = keras.ops.flip(images, axis=2)
    model = keras.Model(images, keras.layers.Average()([inner(images), inner(mirrored)]))
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 16, 16, 1), dtype=np.uint8)
    network = KerasNetwork(model)
    outputs, features = network.run(pixels)
    np.testing.assert_allclose(outputs, model.predict(pixels, verbose=0), atol=1e-6)
    alone = KerasNetwork(inner)
    expected = [alone.run(each)[1] for each in (pixels, np.ascontiguousarray(pixels[:, :, ::-1]))]
    np.testing.assert_allclose(features, np.mean(expected, axis=0), atol=1e-6)
    for ours, theirs in zip(
        (outputs, features), OnnxNetwork(convert_to_onnx(network)).run(pixels), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
