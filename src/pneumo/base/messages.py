"""TensorFlow's messages about the machine, out of sight where they help nobody."""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

from pneumo.base.reproducibility import NVIDIA_DRIVER

DEBUG_VARIABLE = "PNEUMO_DEBUG"


def quieten_tensorflow() -> None:
    """Ask TensorFlow for errors only, and for nothing where there is no GPU whose errors could matter."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if NVIDIA_DRIVER.exists() else "3")
    # It warns of every network after the first few of a process, as cross-validation builds them.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def hold_messages() -> Iterator[None]:
    """Keep back what native code writes to the standard error stream while a backend is imported.

    TensorFlow writes there before its log level counts. Everything is shown if the import fails, where there
    is a GPU, and where the environment variable PNEUMO_DEBUG is set.
    """
    if os.environ.get(DEBUG_VARIABLE) or NVIDIA_DRIVER.exists():
        yield
        return
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(original, 2)
            held.seek(0)
            shutil.copyfileobj(held, sys.stderr)
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
