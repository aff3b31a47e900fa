"""A bundle's network in Keras, and its way out to ONNX."""

import io
import tempfile
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from pneumo.base.errors import PneumoError
from pneumo.base.messages import hold_messages
from pneumo.prediction.bundle import KERAS, MAX_NETWORK_BYTES, Bundle

Images = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_ONNX_TRIAL = (3, 2)  # images to try an exported network with, and their seed
_LARGEST_DIFFERENCE = 1e-4
_UNFLIPPED = "unflipped"  # name of the network inside one that averages over an image and its mirror image


class KerasNetwork:
    """A network that gives probabilities and features.

    Args:
        model: uint8 images of shape (n, size_px, size_px, 1) -> probabilities, as training saved it.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = add_features(model)

    def run(self, images: Images) -> tuple[FloatArray, FloatArray]:
        """Run one batch through the network.

        Args:
            images: uint8 array of shape (n, size_px, size_px, 1).

        Returns:
            Its outputs, float32 of shape (n, 1) or (n, n_classes), and features, float32 of shape
            (n, n_features).
        """
        outputs, features = self.model.predict_on_batch(images)
        return np.asarray(outputs), np.asarray(features)


def load_keras(bundle: Bundle, number: int) -> keras.Model:
    """Load a network of a bundle. Nothing in the file is run as code.

    Args:
        bundle: that has it in Keras.
        number: of the network.

    Raises:
        PneumoError: the network is damaged, larger than its limit, or holds what is not Keras's own.
    """
    content = bundle.read_network(number, KERAS)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_NETWORK_BYTES:
            raise ValueError(f"Expected a network of up to {MAX_NETWORK_BYTES} bytes. Received: {size}")
        # Keras reads files alone, and goes by their suffix.
        with tempfile.NamedTemporaryFile(suffix=KERAS) as file:
            file.write(content)
            file.flush()
            return keras.models.load_model(Path(file.name), compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever it stumbles over in a foreign file
        raise bundle.refuse_network(error) from error


def load_network(bundle: Bundle, number: int) -> KerasNetwork:
    """Load a network of a bundle to predict with; see `load_keras`.

    Raises:
        PneumoError: as `load_keras`, or it is no classifier of this project.
    """
    model = load_keras(bundle, number)
    try:
        return KerasNetwork(model)
    except Exception as error:  # of a foreign network anything may be missing
        raise bundle.refuse_network(error) from error


def add_features(model: keras.Model) -> keras.Model:
    """Return a classifier with features beside its output.

    Where it averages over an image and its mirror image, the features are averaged too.
    """
    if all(layer.name != _UNFLIPPED for layer in model.layers):
        return keras.Model(model.input, [model.output, find_features(model)])
    unflipped = model.get_layer(_UNFLIPPED)
    both = keras.Model(unflipped.input, [unflipped.output, find_features(unflipped)])
    images = keras.Input(model.input.shape[1:], dtype=model.input.dtype)
    answers = zip(both(images), both(keras.ops.flip(images, axis=2)), strict=True)
    return keras.Model(images, [keras.layers.Average()(list(pair)) for pair in answers])


def find_features(model: keras.Model) -> keras.KerasTensor:
    """Return what a classifier of `training.networks` makes of an image before it decides.

    These are its last feature maps, averaged over the image, or, where it has no convolutions, the input of
    its last layer.
    """
    collapse = next(
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.GlobalAveragePooling2D | keras.layers.Flatten)
    )
    if collapse.input.shape[-1] == model.input.shape[-1]:
        return model.get_layer("probability").input
    return keras.layers.GlobalAveragePooling2D()(collapse.input)


class MatrixResizing(keras.layers.Layer):
    """Does what an antialiased `Resizing` does to images of one channel, as two products of matrices.

    ONNX has no operation for antialiased resizing as TensorFlow does it.

    Args:
        resizing: the layer to stand in for; it has been called.
    """

    def __init__(self, resizing: keras.layers.Resizing) -> None:
        super().__init__()
        _, height, width, n_channels = resizing.input.shape
        if n_channels != 1:
            raise ValueError(f"Expected images of one channel. Received: {n_channels}")
        self._rows = self._resize_axis(height, resizing.height)
        self._columns = self._resize_axis(width, resizing.width).T

    @staticmethod
    def _resize_axis(n_from: int, n_to: int) -> FloatArray:
        """Return how much of each old pixel (columns) is in each new one (rows)."""
        each_alone = np.eye(n_from, dtype=np.float32)[..., None]
        resized = keras.ops.image.resize(each_alone, (n_to, n_from), antialias=True)
        return keras.ops.convert_to_numpy(resized)[..., 0]

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Resize float images of shape (n, height, width, 1)."""
        rows = keras.ops.matmul(self._rows, images[..., 0])
        return keras.ops.matmul(rows, self._columns)[..., None]


def convert_to_onnx(network: KerasNetwork) -> bytes:
    """Return a network in ONNX, with the same two outputs.

    Raises:
        PneumoError: tf2onnx is not installed, Keras does not run on TensorFlow, or the result differs.
    """
    from pneumo.prediction.onnx_network import OnnxNetwork

    if keras.backend.backend() != "tensorflow":
        raise PneumoError(f"--onnx: Expected Keras on TensorFlow. Received: {keras.backend.backend()}")
    n_images, seed = _ONNX_TRIAL
    shape = (n_images, *network.model.input_shape[1:])
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = network.run(images)
    model = keras.models.clone_model(network.model, clone_function=_replace_resizing)
    model(images)  # Keras exports only what has been called
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        try:
            # tf2onnx uses what NumPy and TensorFlow warn of; nothing here can change that.
            with hold_messages(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.export(path, format="onnx", verbose=False)
        except ImportError as error:
            raise PneumoError(
                "--onnx: Expected tf2onnx. Received: none. `pip install 'pneumo[onnx]'`"
            ) from error
        content = path.read_bytes()
    for ours, theirs in zip(expected, OnnxNetwork(content).run(images), strict=True):
        difference = float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))
        if not difference <= _LARGEST_DIFFERENCE:
            raise PneumoError(f"--onnx: Expected the same outputs as Keras's. Received: {difference:g} apart")
    return content


def _replace_resizing(layer: keras.Layer) -> keras.Layer:
    return MatrixResizing(layer) if isinstance(layer, keras.layers.Resizing) else layer
