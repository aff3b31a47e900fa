"""What is seen of a graph of tasks while it runs: a live table on a terminal, else a line a task."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pneumo.execution.graph import Progress

MAX_RUNNING_SHOWN = 8


class Display:
    """Shows progress; within its `with` block on a terminal it keeps the lower part of the screen.

    Args:
        names: of all tasks; what stands before `@` is a task's kind.
        n_workers: tasks that run at a time, for the estimate of the time left.
        count_images: name of a task that ran -> images that it trained on, all epochs in sum; 0 for others.
        console: where to write.
    """

    def __init__(
        self,
        names: list[str],
        n_workers: int,
        count_images: Callable[[str], int] = lambda _: 0,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console()
        self._names = names
        self._n_workers = n_workers
        self._count_images = count_images
        self._began: dict[str, float] = {}
        self._n_images: dict[str, int] = {}
        self._said: set[str] = set()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show a new state."""
        now = time.monotonic()
        for name in progress.running:
            self._began.setdefault(name, now)
        for name in progress.done.keys() - self._n_images.keys():
            self._n_images[name] = self._count_images(name)
        self._say_ended(progress)
        if self._console.is_terminal:
            self._live.update(self._build_table(progress, now), refresh=True)

    def _say_ended(self, progress: Progress) -> None:
        for name, seconds in progress.done.items():
            self._say(name, progress, f"{name}: {seconds:.1f} s")
        for name, error in progress.failed.items():
            self._say(name, progress, f"{name} failed: {error}")

    def _say(self, name: str, progress: Progress, text: str) -> None:
        if name not in self._said:
            self._said.add(name)
            share = f"[{progress.n_ended}/{progress.n_tasks}]"
            self._console.print(f"{share} {text}", markup=False, highlight=False, soft_wrap=True)

    def _build_table(self, progress: Progress, now: float) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("stage", "done", "unchanged", "running", "failed", "of"):
            table.add_column(title, justify="left" if title == "stage" else "right")
        counts = [
            Counter(map(find_kind, names))
            for names in (
                progress.done,
                progress.unchanged,
                progress.running,
                [*progress.failed, *progress.skipped],
                self._names,
            )
        ]
        for kind in dict.fromkeys(map(find_kind, self._names)):
            table.add_row(kind, *(str(count[kind]) if count[kind] else "" for count in counts))
        table.add_section()
        for name in progress.running[:MAX_RUNNING_SHOWN]:
            table.add_row(f"  {name} {now - self._began[name]:.0f} s")
        facts = []
        seconds_left = estimate_seconds_left(self._names, progress, self._n_workers)
        if seconds_left is not None:
            facts.append(f"about {timedelta(seconds=round(seconds_left))} left")
        n_images = sum(self._n_images.values())
        if n_images:
            first = min(self._began[name] for name, n in self._n_images.items() if n)
            facts.append(f"{n_images / (now - first):.0f} images/s trained")
        table.caption = ", ".join(facts)
        return table


def find_kind(name: str) -> str:
    """Return what stands before the `@` of a task's name."""
    return name.partition("@")[0]


def estimate_seconds_left(names: list[str], progress: Progress, n_workers: int) -> float | None:
    """Estimate how long the rest takes, from the mean of the tasks of the same kind that have ended.

    Returns:
        Seconds, or None until one task of each kind that is left has ended.
    """
    seconds = defaultdict(list)
    for name in progress.unchanged:
        seconds[find_kind(name)].append(0.0)
    for name, each in progress.done.items():
        seconds[find_kind(name)].append(each)
    ended = {*progress.unchanged, *progress.done, *progress.failed, *progress.skipped}
    left = [find_kind(name) for name in names if name not in ended]
    if not set(left) <= seconds.keys():
        return None
    return sum(sum(seconds[kind]) / len(seconds[kind]) for kind in left) / n_workers
