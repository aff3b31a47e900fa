"""What `pneumo sweep` saves against `dvc repro` alone, and what its bookkeeping costs."""

import argparse
import contextlib
import hashlib
import heapq
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import yaml
from dvc.repo import Repo

from pneumo.base.paths import FEATURE_CACHE_DIR
from pneumo.execution.engine import Call, Engine, Outcome
from pneumo.execution.graph import Progress, Task, run_graph
from pneumo.execution.local import LocalEngine, count_cpus
from pneumo.execution.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
COPIED = (
    "conf",
    "src",
    "weights",
    "originals/README.md",
    "dvc.yaml",
    "requirements.lock",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
)
WAYS = {"dvc repro": ["dvc", "repro"], "pneumo sweep": ["pneumo", "sweep"]}

# A frozen backbone that all seeds share, with what differs from the demo.
HEADS = {
    "combos": {
        "raw": [],
        "equalize": ["equalize"],
        "clahe": [{"clahe": {"clip_limit": 2.0, "tiles": 4}}],
        "smooth": [{"median": {"size_px": 5}}],
        "edges": ["sobel"],
    },
    "models": {"mobilenet_frozen": {"network": {"input_size_px": 64}}},
}

# A pipeline whose stages do next to nothing: each run is trained and evaluated.
TOY_STAGES = """\
stages:
  first:
    cmd: toy first out/first.txt
    deps: [code]
    outs: [out/first.txt]
  train:
    matrix: {run: "${runs}"}
    cmd: toy train out/trained/${item.run}
    deps: [code, out/first.txt]
    outs: ["out/trained/${item.run}"]
  evaluate:
    matrix: {run: "${runs}"}
    cmd: toy evaluate out/evaluated/${item.run}
    deps: [code, "out/trained/${item.run}"]
    outs: ["out/evaluated/${item.run}"]
"""


def main() -> None:
    """Measure one of three things and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    measured = parser.add_subparsers(required=True)
    demo = measured.add_parser("demo", help="an experiment from scratch, both ways in turn")
    demo.add_argument("--experiment", default="demo", help="a file of conf/experiment/ (default: demo)")
    demo.add_argument("--n-seeds", type=int, default=1, help="(default: 1)")
    demo.add_argument("--n-rounds", type=int, default=1, help="pairs (default: 1)")
    demo.add_argument("--workers", type=int, default=count_cpus(), help="(default: all cores)")
    demo.set_defaults(measure=measure_demo)
    heads = measured.add_parser("heads", help="heads on cached features of a frozen backbone, both ways")
    heads.add_argument("--n-seeds", type=int, default=15, help="on each of five combos (default: 15)")
    heads.add_argument("--weights-dir", type=Path, help="of ImageNet weights (default: Keras downloads them)")
    heads.add_argument("--workers", type=int, default=count_cpus(), help="(default: all cores)")
    heads.set_defaults(measure=measure_heads)
    overhead = measured.add_parser("overhead", help="runs that do nothing, in processes")
    overhead.add_argument("--n-runs", type=int, default=200, help="(default: 200)")
    overhead.add_argument("--workers", type=int, default=count_cpus(), help="(default: all cores)")
    overhead.set_defaults(measure=measure_overhead)
    simulation = measured.add_parser("simulation", help="runs that do nothing, on workers that are not there")
    simulation.add_argument("--n-runs", type=int, default=10_000, help="(default: 10000)")
    simulation.add_argument("--workers", type=int, default=1_000, help="(default: 1000)")
    simulation.set_defaults(measure=measure_simulation)
    options = vars(parser.parse_args())
    options.pop("measure")(**options)


def measure_demo(experiment: str, n_seeds: int, n_rounds: int, workers: int) -> None:
    """Run an experiment from scratch with `dvc repro` and with `pneumo sweep`, and compare the bytes."""
    ratios = []
    for number in range(n_rounds):
        with tempfile.TemporaryDirectory() as folder:
            seconds, hashes = {}, {}
            for way in list(WAYS) if number % 2 == 0 else list(WAYS)[::-1]:
                root = make_project(Path(folder, name_folder(way)), experiment, range(n_seeds))
                seconds[way], hashes[way] = time_way(way, root, workers), hash_outputs(root)
            ratios.append(compare_ways(seconds, hashes))
    print(f"median ratio {sorted(ratios)[len(ratios) // 2]:.2f}, {workers} workers, {count_cpus()} cores")


def measure_heads(n_seeds: int, weights_dir: Path | None, workers: int) -> None:
    """Train heads on features that are there, and all that follows, with both ways."""
    changes = HEADS if weights_dir is None else {**HEADS, "weights_dir": str(weights_dir.absolute())}
    with tempfile.TemporaryDirectory() as folder:
        roots = {way: Path(folder, name_folder(way)) for way in WAYS}
        first = make_project(roots["dvc repro"], "demo", [0], changes)
        run_quietly(WAYS["pneumo sweep"], first)  # which leaves the features
        write_params(first, "demo", range(1, 1 + n_seeds), changes)
        n_features = count_features(first)
        shutil.copytree(first, roots["pneumo sweep"], symlinks=True)
        seconds = {way: time_way(way, root, workers) for way, root in roots.items()}
        compare_ways(seconds, {way: hash_outputs(root) for way, root in roots.items()})
        for way, root in roots.items():
            if count_features(root) != n_features:
                sys.exit(f"Expected features that were there before. {way} has computed others.")
    print(f"{n_seeds * len(HEADS['combos'])} heads, {workers} workers, {count_cpus()} cores")


def count_features(root: Path) -> int:
    """Return how many arrays of features there are."""
    return len(list((root / FEATURE_CACHE_DIR).glob("*.npy")))


def name_folder(way: str) -> str:
    """Return a folder's name."""
    return way.replace(" ", "_")


def time_way(way: str, root: Path, workers: int) -> float:
    """Return the seconds in which a way runs what is due."""
    options = ["--workers", str(workers)] if "sweep" in way else []
    start = time.perf_counter()
    run_quietly([*WAYS[way], *options], root)
    return time.perf_counter() - start


def compare_ways(seconds: dict[str, float], hashes: dict[str, dict[str, str]]) -> float:
    """Print the seconds of both ways and return their ratio."""
    ratio = seconds["dvc repro"] / seconds["pneumo sweep"]
    same = hashes["dvc repro"] == hashes["pneumo sweep"]
    shown = ", ".join(f"{way} {value:.1f} s" for way, value in seconds.items())
    print(f"{shown}, ratio {ratio:.2f}, same bytes: {'yes' if same else 'NO'}", flush=True)
    return ratio


def make_project(
    root: Path, experiment: str, seeds: Iterable[int], changes: Mapping[str, object] | None = None
) -> Path:
    """Copy this project without outputs and cache; give it an experiment, with seeds and changes."""
    root.mkdir(parents=True)
    for name in COPIED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copyfile(ROOT / name, root / name)
    write_params(root, experiment, seeds, changes or {})
    run_quietly(["git", "init"], root)
    return root


def write_params(root: Path, experiment: str, seeds: Iterable[int], changes: Mapping[str, object]) -> None:
    """Write params.yaml."""
    params = yaml.safe_load((ROOT / f"conf/experiment/{experiment}.yaml").read_text())
    params |= {**changes, "seeds": list(seeds)}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def run_quietly(command: list[str], root: Path) -> None:
    """Run a command in a project; show what it said if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        "DVC_SITE_CACHE_DIR": str(root.parent / f"{root.name}.cache"),
    }
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stdout}\n{result.stderr}")


def hash_outputs(root: Path) -> dict[str, str]:
    """Return the hash of all outputs but for the seconds of training and the page that shows them."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("data", "models", "reports")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and ".seconds" not in path.parts and path.name not in ("seconds.csv", "index.html")
    }


def measure_overhead(n_runs: int, workers: int) -> None:
    """Run a toy pipeline in processes; a run that does nothing costs what the sweep adds to it."""
    with toy_project(n_runs), LocalEngine(workers, Path("logs"), ["sweep"]) as engine:
        start = time.perf_counter()
        progress = run_toy(engine)
        wall_s = time.perf_counter() - start
        busy_s = sum(progress.done.values()) / workers
        print(f"{n_runs} runs of two stages each, {workers} workers: {wall_s / n_runs:.3f} s a run")
        print(f"less the time of their processes: {(wall_s - busy_s) / n_runs:.3f} s a run")
        start = time.perf_counter()
        run_toy(engine)
        print(f"again, with nothing due: {time.perf_counter() - start:.1f} s")


def measure_simulation(n_runs: int, workers: int) -> None:
    """Let a toy pipeline's runs take no time, so that all the time is bookkeeping's."""
    with toy_project(n_runs):
        start = time.perf_counter()
        progress = run_toy(InstantEngine(workers))
        wall_s = time.perf_counter() - start
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{len(progress.done)} stages, {wall_s:.0f} s, {wall_s / n_runs:.3f} s a run, {memory_mb:.0f} MB")
    print(f"{workers} workers are kept busy by runs of {wall_s / n_runs * workers:.0f} s or more")


@contextlib.contextmanager
def toy_project(n_runs: int) -> Iterator[None]:
    """Work in a folder with the toy pipeline, which has not run."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("dvc.yaml").write_text(TOY_STAGES)
        Path("params.yaml").write_text(yaml.safe_dump({"runs": [f"r{number}" for number in range(n_runs)]}))
        Path("code").mkdir()
        for number in range(20):
            Path("code", f"module_{number}.py").write_text(f"NUMBER = {number}\n")
        Path(".gitignore").write_text("/out/\n/logs/\n")
        subprocess.run(["git", "init", "--quiet"], check=True)
        os.environ["DVC_SITE_CACHE_DIR"] = str(Path("site").absolute())
        Repo.init(".").close()
        yield


def run_toy(engine: Engine) -> Progress:
    """Run what is due of the toy pipeline."""
    with Pipeline(("out",)) as pipeline:

        def begin(task: Task, priority: int) -> Call | None:
            if pipeline.restore(task.name):
                return None
            path = pipeline.get_command(task.name).split()[-1]
            return Call(task.name, "sweep:write_toy", (path,), priority=priority)

        return run_graph(pipeline.tasks, engine, begin, lambda outcome: pipeline.commit(outcome.name))


def write_toy(path: str) -> int:
    """Write what a stage of the toy pipeline leaves: a file, or a folder of three."""
    if path.endswith(".txt"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("first")
    else:
        Path(path).mkdir(parents=True)
        for name in ("a", "b", "c"):
            Path(path, name).write_text(f"{path} {name}")
    return 0


class InstantEngine(Engine):
    """Calls at once, in this process, as if many workers had done it."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers
        self._waiting: list[tuple[int, int, Call]] = []
        self._n_submitted = 0

    def submit(self, call: Call) -> None:
        """Queue a call."""
        heapq.heappush(self._waiting, (-call.priority, self._n_submitted, call))
        self._n_submitted += 1

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Return the outcomes of as many calls as there are workers, once all that is ready was submitted."""
        if timeout_s == 0 and len(self._waiting) < self._n_workers:
            return []
        calls = [heapq.heappop(self._waiting)[2] for _ in range(min(self._n_workers, len(self._waiting)))]
        return [Outcome(call.name, write_toy(*call.arguments)) for call in calls]

    def running(self) -> list[str]:
        """Return the names of the calls that workers would run."""
        return [call.name for _, _, call in self._waiting[: self._n_workers]]

    def cancel(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


if __name__ == "__main__":
    main()
