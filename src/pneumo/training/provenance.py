"""Under what a run was trained: what explains why the same recipe and seed give other numbers elsewhere."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from pneumo.base.artifacts import hash_file
from pneumo.training.devices import describe_determinism, find_device

_PACKAGES = ("keras", "numpy", "opencv-python-headless", "pneumo")
_CPU_INFO = Path("/proc/cpuinfo")


def describe_environment() -> dict[str, Any]:
    """Return versions, backend, device and processor of this process.

    Returns:
        `versions` (package -> version, Python and the backend among them), `backend`, `device` (the first one
        that Keras lists, e.g. `cpu:0`), `processor` (its model name) and `determinism` (a sentence).
    """
    backend = keras.backend.backend()
    versions = {name: version(name) for name in sorted((*_PACKAGES, backend))}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "backend": backend,
        "device": find_device(),
        "processor": find_processor(),
        "determinism": describe_determinism(),
    }


def find_processor() -> str:
    """Return the processor's model name, as far as the system tells it."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def hash_inputs(paths: dict[str, Path]) -> dict[str, str | None]:
    """Return name -> SHA-256 of a file, None where there is no such file."""
    return {name: hash_file(path) if path.is_file() else None for name, path in paths.items()}
