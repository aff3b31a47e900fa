"""A bundle's network in ONNX Runtime, which starts and runs faster than Keras and does not need it."""

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pneumo.prediction.bundle import ONNX, Bundle

# Set before it is imported, because ONNX Runtime reports its use to its makers and keeps files for that.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Images = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_ERRORS_ONLY = 3
# Where a network may keep weights in files of their own. There is no such folder, so that it reads none.
_NO_FOLDER = "/dev/null/none"


class OnnxNetwork:
    """A network that gives probabilities and features, and perhaps class activation maps.

    Args:
        content: of the file.

    Attributes:
        draw_class_maps: uint8 images of shape (n, size_px, size_px, 1) -> float32 maps of shape (n, n_views,
            height, width, 1 or n_classes), see `keras_network.draw_class_maps`; None where it has none.

    Raises:
        ValueError: it takes or gives something else than images, outputs, features and maps.
        Exception: whatever ONNX Runtime raises for a file that it cannot use.
    """

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [each.type for each in inputs] != ["tensor(uint8)"] or len(outputs) not in (2, 3):
            raise ValueError("Expected uint8 images in, probabilities and features out.")
        self._input, self._outputs = inputs[0].name, [each.name for each in outputs]
        has_maps = len(outputs) > 2
        self.draw_class_maps: Callable[[Images], FloatArray] | None = self._draw if has_maps else None

    def run(self, images: Images) -> tuple[FloatArray, FloatArray]:
        """Run one batch through the network; see `KerasNetwork.run`."""
        outputs, features = self._session.run(self._outputs[:2], {self._input: images})
        return outputs, features

    def _draw(self, images: Images) -> FloatArray:
        (maps,) = self._session.run(self._outputs[2:], {self._input: images})
        return maps


def load_onnx(bundle: Bundle, number: int) -> OnnxNetwork:
    """Load a network of a bundle. Nothing in the file is run as code.

    Args:
        bundle: that has it in ONNX.
        number: of the network.

    Raises:
        PneumoError: the network is damaged or no network of this project.
    """
    content = bundle.read_network(number, ONNX)
    try:
        return OnnxNetwork(content)
    except Exception as error:  # ONNX Runtime raises a dozen types of its own
        raise bundle.refuse_network(error) from error
