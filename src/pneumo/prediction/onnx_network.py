"""A bundle's network in ONNX Runtime, which starts and runs faster than Keras and does not need it."""

import os

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
    """A network that gives probabilities and features; see `KerasNetwork`.

    Args:
        content: of the file.

    Raises:
        ValueError: it takes or gives something else than images, outputs and features.
        Exception: whatever ONNX Runtime raises for a file that it cannot use.
    """

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [each.type for each in inputs] != ["tensor(uint8)"] or len(outputs) != 2:
            raise ValueError("Expected uint8 images in, probabilities and features out.")
        self._input = inputs[0].name

    def run(self, images: Images) -> tuple[FloatArray, FloatArray]:
        """Run one batch through the network; see `KerasNetwork.run`."""
        outputs, features = self._session.run(None, {self._input: images})
        return outputs, features


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
