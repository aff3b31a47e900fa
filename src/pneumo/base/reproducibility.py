"""What makes two runs of the same thing give the same bytes."""

import os
from pathlib import Path

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
THREADS_VARIABLE = "TF_NUM_INTRAOP_THREADS"
_COMPILED_DIR = Path("data/.compiled")
_BLAS_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def make_deterministic(threads: int = 1) -> None:
    """Ask the backend to add in the same order every time; call it before its first operation runs.

    Seeds are set where a network is built.

    Args:
        threads: of an operation. Other numbers of threads add in another order, so that the number must not
            follow from the machine or from what else runs on it.
    """
    os.environ["TF_DETERMINISTIC_OPS"] = "1"
    os.environ[THREADS_VARIABLE] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    if threads == 1:  # JAX knows one thread and as many as there are cores
        _add_xla_flag("--xla_cpu_multi_thread_eigen=false")
    if NVIDIA_DRIVER.exists():
        _add_xla_flag("--xla_gpu_deterministic_ops=true")
        # Compiling for a GPU takes longer than many a training; a recipe's other seeds then have it done.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_COMPILED_DIR.absolute()))


def _add_xla_flag(flag: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*(each for each in flags if each != flag), flag])


def limit_blas_threads() -> None:
    """Let NumPy, SciPy and scikit-learn compute in one thread; call it before they are imported."""
    os.environ.update(dict.fromkeys(_BLAS_VARIABLES, "1"))
