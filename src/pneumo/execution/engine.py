"""The contract of engines: calls in, outcomes back in any order."""

import importlib
import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pneumo.base.errors import PneumoError


@dataclass(frozen=True)
class Resources:
    """What a call needs while it runs.

    Attributes:
        cpus: cores, 1 or more.
        gpus: GPUs; a fraction below 1 shares one, above 1 they are whole.
    """

    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Files:
    """What a call reads and writes; paths of files and folders, relative to the current folder.

    Attributes:
        inputs: what it reads.
        outputs: what it writes; a folder is replaced as a whole.
        caches: folders from which it takes what is there, and to which it adds files.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    caches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """A function and what it is called with.

    Attributes:
        name: of the call, used in messages and as the name of its log file.
        target: `module:function`, imported where the call runs.
        arguments: of the function; they are pickled.
        resources: what it needs.
        priority: among waiting calls, the greatest starts first.
        files: of a call that may run on another machine; None keeps it on this one.
    """

    name: str
    target: str
    arguments: tuple[Any, ...] = ()
    resources: Resources = field(default_factory=Resources)
    priority: int = 0
    files: Files | None = None


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        name: of the call.
        value: what the function returned.
        error: one line that says why it failed, or None.
        seconds: from the call's start to its end.
    """

    name: str
    value: Any = None
    error: str | None = None
    seconds: float = 0.0


class Engine(ABC):
    """Runs calls, as many at a time as there are resources; leaving its `with` block stops all that run."""

    @abstractmethod
    def submit(self, call: Call) -> None:
        """Queue a call; no other call of that name may be waiting or running."""

    @abstractmethod
    def wait(self, timeout_s: float) -> list[Outcome]:
        """Return the outcomes of calls that have ended since the last time, in any order.

        Args:
            timeout_s: how long to wait where there are none yet; 0 does not wait.
        """

    @abstractmethod
    def running(self) -> list[str]:
        """Return the names of the calls that run at the moment."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop all calls, waiting and running; no outcome of theirs is returned."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


def call_target(target: str, arguments: tuple[Any, ...]) -> tuple[Any, str | None]:
    """Import a function, call it and return its value and an error.

    Args:
        target: `module:function`.
        arguments: of the function.

    Returns:
        (value, None), or (None, one line) where it failed. The traceback of what is not a PneumoError is
        printed to the standard error stream.
    """
    module, _, function = target.partition(":")
    try:
        return getattr(importlib.import_module(module), function)(*arguments), None
    except PneumoError as error:
        return None, str(error)
    except BaseException as error:  # SystemExit too: nothing that a call raises may stop its engine
        traceback.print_exc()
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"
