"""A bundle's network in Keras, and its way out to ONNX."""

import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from pneumo.audit.scorers import find_collapse
from pneumo.base.errors import PneumoError
from pneumo.base.layers import HEAD, PROBABILITY, UNFLIPPED
from pneumo.base.messages import hold_messages
from pneumo.prediction.bundle import KERAS, MAX_NETWORK_BYTES, Bundle

Images = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_ONNX_TRIAL = (3, 2)  # images to try an exported network with, and their seed
_LARGEST_DIFFERENCE = 1e-4


class KerasNetwork:
    """A network that gives probabilities and features.

    Args:
        model: uint8 images of shape (n, size_px, size_px, 1) -> probabilities, as training saved it.
    """

    def __init__(self, model: keras.Model) -> None:
        self.classifier = model
        self.model = add_outputs(model)
        # Grad-CAM does the same for any network in Keras.
        self.draw_class_maps: Callable[[Images], FloatArray] | None = None

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


def add_outputs(model: keras.Model, class_maps: bool = False) -> keras.Model:
    """Return a classifier with features beside its output, and with class activation maps on request.

    Where it averages over an image and its mirror image, the features are averaged too, and there is a map of
    each, both as the image lies.

    Args:
        model: uint8 images of shape (n, size_px, size_px, 1) -> probabilities, as training saved it.
        class_maps: add them as a third output, where the classifier has any; see `draw_class_maps`.
    """

    def list_outputs(classifier: keras.Model) -> list[keras.KerasTensor]:
        drawn = draw_class_maps(classifier) if class_maps else None
        outputs = [classifier.output, find_features(classifier)]
        return outputs if drawn is None else [*outputs, drawn]

    if all(layer.name != UNFLIPPED for layer in model.layers):
        return keras.Model(model.input, list_outputs(model))
    unflipped = model.get_layer(UNFLIPPED)
    whole = keras.Model(unflipped.input, list_outputs(unflipped))
    images = keras.Input(model.input.shape[1:], dtype=model.input.dtype)
    as_is, mirrored = whole(images), whole(keras.ops.flip(images, axis=2))
    outputs = [keras.layers.Average()([as_is[i], mirrored[i]]) for i in range(2)]
    if len(as_is) > 2:
        outputs.append(keras.ops.concatenate([as_is[2], keras.ops.flip(mirrored[2], axis=3)], axis=1))
    return keras.Model(images, outputs)


def draw_class_maps(model: keras.Model) -> keras.KerasTensor | None:
    """Return a classifier's class activation maps, or None where it has none.

    It has them where nothing but an average over the image and one layer of weights lies between the last
    feature maps and the decision. The maps, weighted by these weights, are then what Grad-CAM comes to,
    without gradients.

    Returns:
        float32 of shape (n, 1, height, width, 1 or n_classes): for each logit, what speaks for it.

    Source: Zhou et al. 2016, doi:10.1109/CVPR.2016.319; Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74.
    """
    head = next((layer for layer in model.layers if layer.name == HEAD), None)
    if head is None:
        return None
    collapse, decision = find_collapse(model), head.get_layer(PROBABILITY)
    passing = keras.layers.InputLayer | keras.layers.Dropout
    if not isinstance(collapse, keras.layers.GlobalAveragePooling2D) or not all(
        layer is decision or isinstance(layer, passing) for layer in head.layers
    ):
        return None
    weigh = keras.layers.Dense(decision.units, use_bias=False)
    drawn = weigh(collapse.input)
    weigh.set_weights([decision.kernel])
    return drawn[:, None]


def find_features(model: keras.Model) -> keras.KerasTensor:
    """Return what a classifier of `training.networks` makes of an image before it decides.

    These are its last feature maps, averaged over the image, or, where it has no convolutions, the input of
    its last layer.
    """
    collapse = find_collapse(model)
    if collapse.input.shape[-1] == model.input.shape[-1]:
        return model.get_layer(PROBABILITY).input
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
    """Return a network in ONNX, with the same two outputs, and with class activation maps where it has any.

    Raises:
        PneumoError: tf2onnx is not installed, Keras does not run on TensorFlow, or the result differs.
    """
    from pneumo.prediction.onnx_network import OnnxNetwork

    if keras.backend.backend() != "tensorflow":
        raise PneumoError(f"--onnx: Expected Keras on TensorFlow. Received: {keras.backend.backend()}")
    n_images, seed = _ONNX_TRIAL
    whole = add_outputs(network.classifier, class_maps=True)
    shape = (n_images, *whole.input_shape[1:])
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = [np.asarray(each) for each in whole.predict_on_batch(images)]
    model = keras.models.clone_model(whole, clone_function=_replace_resizing)
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
    converted = OnnxNetwork(content)
    maps = [] if converted.draw_class_maps is None else [converted.draw_class_maps(images)]
    for ours, theirs in zip(expected, [*converted.run(images), *maps], strict=True):
        difference = float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))
        if not difference <= _LARGEST_DIFFERENCE:
            raise PneumoError(f"--onnx: Expected the same outputs as Keras's. Received: {difference:g} apart")
    return content


def _replace_resizing(layer: keras.Layer) -> keras.Layer:
    return MatrixResizing(layer) if isinstance(layer, keras.layers.Resizing) else layer
