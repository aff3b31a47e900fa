"""What calls of tests do; imported by the processes that run them."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from pneumo.base.errors import PneumoError

STATE = []


def describe(value):
    """Return the value, the process, its threads variable and device, and how often this module was used."""
    STATE.append(value)
    return value, os.getpid(), len(STATE), os.environ.get("CUDA_VISIBLE_DEVICES")


def say(text):
    print(f"{text} to stdout", flush=True)
    print(f"{text} to stderr", file=sys.stderr)
    os.system("echo from a child process")  # noqa: S605


def fail(kind):
    if kind == "expected":
        raise PneumoError("Expected one. Received: two")
    if kind == "exit":
        sys.exit(3)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "vanished":
        os._exit(4)
    raise ValueError("two\nlines")


def sleep(seconds, path=None):
    """Write when it began and ended, where there is a path."""
    start = time.monotonic()
    time.sleep(seconds)
    if path is not None:
        Path(path).write_text(f"{start} {time.monotonic()}")


def beat(path):
    """Append to a file until killed."""
    for _ in range(600):
        with Path(path).open("a") as file:
            file.write(".")
        time.sleep(0.05)


def copy(source, *targets):
    """Copy a file to each target."""
    for target in map(Path, targets):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(source).read_bytes())


def kill_parent():
    """Kill the process that called."""
    os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
    time.sleep(60)
