"""What is no bundle, or a hostile one, is refused with one clear line; nothing of it is run or extracted."""

import io
import json
import shutil
import struct
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from pneumo.base.errors import PneumoError
from pneumo.prediction import bundle as bundle_module
from pneumo.prediction.bundle import KERAS, ONNX, Bundle, Card, write_bundle
from pneumo.prediction.predictor import Predictor
from pneumo.preprocessing.combo import Step

RESIZE = {"name": "resize", "parameters": {"size_px": 32}}
EXPECTED = "Expected a model that `pneumo export` wrote. Received: "


def read_entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


@pytest.fixture
def path(exported, tmp_path):
    """Return a copy of a bundle with its network in Keras and ONNX."""
    return Path(shutil.copyfile(exported / "both.pneumo", tmp_path / "model.pneumo"))


def expect_refused(path, part, suffix=None):
    with pytest.raises(PneumoError) as error:
        Predictor(Bundle(path), suffix)
    message = str(error.value)
    assert message.startswith(f"{EXPECTED}{path} (")
    assert part in message
    assert "\n" not in message
    assert len(message) < 400


def test_what_is_written_is_read(tmp_path):
    card = Card(
        ["a", "b", "c"],
        [Step("resize", {"size_px": 20, "mode": "letterbox"})],
        None,
        1.5,
        "noise",
        ["e/c/m/0", "e/c/m/1"],
    )
    arrays = [np.ones((3, 4), np.float32), np.zeros((2, 7), np.float32)]
    write_bundle(tmp_path / "x", card, {KERAS: [b"k0", b"k1"], ONNX: [b"o0", b"o1"]}, arrays)
    bundle = Bundle(tmp_path / "x")
    assert bundle.card == card
    assert bundle.formats == [KERAS, ONNX]
    assert [bundle.read_network(i, suffix) for suffix in (KERAS, ONNX) for i in (0, 1)] == [
        b"k0",
        b"k1",
        b"o0",
        b"o1",
    ]
    for found, array in zip(bundle.read_novelty(), arrays, strict=True):
        np.testing.assert_array_equal(found, array)
    write_bundle(tmp_path / "y", card, {ONNX: [b"o0", b"o1"]})
    assert Bundle(tmp_path / "y").read_novelty() is None
    assert Bundle(tmp_path / "y").formats == [ONNX]


# Files


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "No such file or directory"),
        (b"", "no zip archive"),
        (b"no archive", "no zip archive"),
        (b"PK\x03\x04" + bytes(100), "no zip archive"),
        (b"PK\x05\x06" + bytes(18), "without card.json"),
    ],
    ids=["missing", "empty", "text", "damaged", "empty archive"],
)
def test_no_archive(tmp_path, content, part):
    path = tmp_path / "x.pneumo"
    if content is not None:
        path.write_bytes(content)
    expect_refused(path, part)


def test_a_folder(tmp_path):
    expect_refused(tmp_path, "Is a directory")


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    expect_refused(path, "(")


@pytest.mark.parametrize("name", ["card.json", "network_0.keras", "network_0.onnx", "novelty_0.npy"])
def test_bytes_that_changed(path, name):
    content = bytearray(path.read_bytes())
    entry = read_entries(path)[name]
    start = content.index(entry)
    content[start + len(entry) // 2] ^= 1
    path.write_bytes(content)
    expect_refused(path, f"{name} is damaged", ONNX if name.endswith("onnx") else KERAS)


@pytest.mark.parametrize("name", ["card.json", "network_0.keras", "novelty_0.npy"])
def test_entries_that_state_more_than_a_model_can_have(path, name, monkeypatch):
    for limit in ("MAX_CARD_BYTES", "MAX_NETWORK_BYTES", "MAX_NOVELTY_BYTES"):
        monkeypatch.setattr(bundle_module, limit, 1_000_000)
    entries = read_entries(path)
    write_entries(path, entries | {name: bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    expect_refused(path, f"{name} is of 5000000 bytes, over the limit of 1000000", KERAS)


def test_an_entry_that_states_less_than_it_holds(path, monkeypatch):
    monkeypatch.setattr(bundle_module, "MAX_CARD_BYTES", 1000)
    entries = read_entries(path)
    write_entries(path, entries | {"card.json": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace(struct.pack("<L", 5_000_000), struct.pack("<L", 999))
    path.write_bytes(content)
    expect_refused(path, "card.json is damaged")


def test_names_of_entries_lead_nowhere(path, tmp_path):
    entries = read_entries(path)
    before = set(tmp_path.rglob("*"))
    write_entries(path, entries | {"../evil": b"x", "/evil": b"x", "C:\\evil": b"x"})
    Predictor(Bundle(path), KERAS)
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/evil").exists()


def test_an_encrypted_entry(path):
    content = bytearray(path.read_bytes())
    for name_offset, flag_offset, name_at in ((30, 6, content.index), (46, 8, content.rindex)):
        header = name_at(b"card.json") - name_offset
        content[header + flag_offset] |= 1
    path.write_bytes(content)
    expect_refused(path, "card.json is damaged")


# Cards


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"format_version": 1}, "of format 1, not 2; export it again"),
        ({"format_version": 99}, "of format 99, not 2; export it again"),
        ({"more": 1}, "other keys"),
        ({"classes": []}, "classes of card.json is not two names or more"),
        ({"classes": [1, 2]}, "classes of card.json"),
        ({"classes": ["a", "b", "c"]}, "has a threshold for 3 classes"),
        ({"threshold": None}, "has a threshold for 2 classes"),
        ({"threshold": "0.5"}, "threshold of card.json is not a number"),
        ({"threshold": float("nan")}, "threshold of card.json is not a number"),
        ({"temperature": 0}, "temperature of card.json is not a number above 0"),
        ({"temperature": True}, "temperature of card.json"),
        ({"trained_on": None}, "trained_on of card.json is not a text"),
        ({"runs": []}, "runs of card.json"),
        ({"runs": ["r"] * 65}, "runs of card.json"),
        ({"runs": ["r", "s"]}, "without a network for each run"),
        ({"metrics": {"roc_auc": 0.9}}, "metrics of card.json"),
        ({"metrics": {"roc_auc": {"value": "1", "low": 0, "high": 1}}}, "metrics of card.json"),
        ({"n_test": -1}, "n_test of card.json"),
        ({"provenance": {}}, "provenance of card.json"),
        ({"steps": []}, "steps of card.json"),
        ({"steps": "resize"}, "steps of card.json"),
        ({"steps": [{"name": "resize"}]}, "steps of card.json"),
        ({"steps": [{"name": "invert", "parameters": {}}]}, "not resized once"),
        ({"steps": [{"name": "resize", "parameters": {"size_px": 10**9}}]}, "not resized once to 1 to 2048"),
        ({"steps": [{"name": "resize", "parameters": {"size_px": 0}}]}, "not resized once"),
        ({"steps": [{"name": "system", "parameters": {}}, RESIZE]}, "Expected one of"),
        ({"steps": [{"name": "resize", "parameters": {"size_px": 32, "shell": "rm"}}]}, "Received: 'shell'"),
        ({"steps": [{"name": "gamma", "parameters": {"gamma": -1}}, RESIZE]}, "gamma"),
    ],
)  # fmt: skip
def test_cards_that_no_export_writes(path, change, part):
    entries = read_entries(path)
    card = json.loads(entries["card.json"]) | change
    write_entries(path, entries | {"card.json": json.dumps(card)})
    expect_refused(path, part)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format_version": 2}'], ids=repr
)
def test_cards_that_are_none(path, content):
    write_entries(path, read_entries(path) | {"card.json": content})
    expect_refused(path, "(")


def test_an_environment_variable_in_a_card_stays_a_text(path, monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    entries = read_entries(path)
    card = json.loads(entries["card.json"]) | {"trained_on": "${oc.env:SECRET}"}
    write_entries(path, entries | {"card.json": json.dumps(card)})
    assert Bundle(path).card.trained_on == "${oc.env:SECRET}"


# Networks


def save_keras(model):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "m.keras"))
        return Path(folder, "m.keras").read_bytes()


def build(*layers, shape=(32, 32, 1), dtype="uint8"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def test_a_network_with_code_in_it_is_not_run(path, tmp_path):
    target = tmp_path / "ran"
    code = keras.layers.Lambda(lambda x, target=str(target): (Path(target).touch(), x)[1])
    model = build(
        code, keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid", name="probability")
    )
    target.unlink(missing_ok=True)  # building the network has run it
    write_entries(path, read_entries(path) | {"network_0.keras": save_keras(model)})
    target.unlink(missing_ok=True)
    expect_refused(path, "its network cannot be loaded", KERAS)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [KERAS, ONNX])
@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x05\x06" + bytes(18)], ids=repr)
def test_networks_that_are_none(path, suffix, content):
    write_entries(path, read_entries(path) | {f"network_0{suffix}": content})
    expect_refused(path, "its network cannot be loaded", suffix)


@pytest.mark.parametrize(
    "model",
    [
        lambda: build(
            keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax", name="probability")
        ),
        lambda: build(keras.layers.Flatten(), keras.layers.Dense(1, name="other")),
        lambda: build(keras.layers.Flatten(), keras.layers.Dense(1, name="probability"), shape=(16, 16, 1)),
        lambda: build(keras.layers.Dense(1, name="probability")),
    ],
    ids=["classes", "layer", "size", "no classifier"],
)
def test_networks_that_do_not_fit_their_card(path, model):
    entries = read_entries(path)
    write_entries(path, entries | {"network_0.keras": save_keras(model())})
    expect_refused(path, "its network cannot be loaded", KERAS)


def test_a_network_that_unpacks_to_more_than_a_network_can_have(path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(5_000_000))
    write_entries(path, read_entries(path) | {"network_0.keras": buffer.getvalue()})
    monkeypatch.setattr("pneumo.prediction.keras_network.MAX_NETWORK_BYTES", 1_000_000)
    expect_refused(path, "its network cannot be loaded", KERAS)


def test_an_onnx_network_may_not_take_weights_from_other_files(path, tmp_path, monkeypatch):
    import onnx

    model = onnx.load_model_from_string(read_entries(path)["network_0.onnx"])
    weights = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (tmp_path / "secret").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    monkeypatch.chdir(tmp_path)
    for location in ("secret", str(tmp_path / "secret")):
        del weights.external_data[:]
        weights.external_data.add(key="location", value=location)
        write_entries(path, read_entries(path) | {"network_0.onnx": model.SerializeToString()})
        expect_refused(path, "its network cannot be loaded", ONNX)


def test_an_onnx_network_of_something_else(path):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    write_entries(path, read_entries(path) | {"network_0.onnx": model.SerializeToString()})
    expect_refused(path, "its network cannot be loaded", ONNX)


# Descriptions of training images


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "damaged"),
        (b"no array", "damaged"),
        (npy(np.array([{}], dtype=object)), "damaged"),
        (
            b"\x93NUMPY\x01\x00\x44\x00{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 9000)}\n",
            "damaged",
        ),
        (npy(np.zeros((3, 4))), "not of finite float32"),
        (npy(np.zeros(3, np.float32)), "not of finite float32"),
        (npy(np.full((3, 4), np.nan, np.float32)), "not of finite float32"),
        (npy(np.zeros((3, 999), np.float32)), "cannot be loaded"),
    ],
    ids=["empty", "text", "objects", "bomb", "float64", "1-d", "nan", "other features"],
)
def test_arrays_that_no_export_writes(path, content, part):
    write_entries(path, read_entries(path) | {"novelty_0.npy": content})
    expect_refused(path, part, KERAS)


def test_a_missing_array(path):
    entries = read_entries(path)
    card = json.loads(entries["card.json"])
    card["runs"] = ["a", "b"]
    both = {"network_1.keras": entries["network_0.keras"], "card.json": json.dumps(card)}
    write_entries(path, {key: value for key, value in entries.items() if "onnx" not in key} | both)
    expect_refused(path, "without novelty_1.npy", KERAS)
