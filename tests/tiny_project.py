"""A small experiment in a folder of its own, driven by the real `dvc` and `pneumo`."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
COMMAND_TIMEOUT_S = 1800  # a guard against hanging, no measure of speed

PARAMS = """\
experiment: tiny
data: {source: phantom, name: phantom, n_train: 40, n_val: 8, n_test: 16}
split: {val_fraction: 0.25, seed: 0}
image_size_px: 32
task: binary
combos:
  raw: []
  clahe: [{clahe: {clip_limit: 2.0, tiles: 4}}]
models:
  dense: {network: {input_size_px: 32, units: [8]}, phases: {fit: {epochs: 2}}}
seeds: [0]
ensembles: {}
threshold: {method: youden}
prevalence: 0.2
equivalence_margin: 0.01
weights_dir: weights
external: {}
"""

# Holds how long training took.
SECONDS_DIR = "models/.seconds"


@dataclass(frozen=True)
class TinyProject:
    """A git and DVC repository with the pipeline's files and an experiment of its own."""

    root: Path

    @classmethod
    def create(cls, root: Path, params: str = PARAMS) -> "TinyProject":
        root.mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.h5")
        for folder in ("conf", "src", "weights"):
            shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
        (root / "originals").mkdir()
        shutil.copyfile(ROOT / "originals/README.md", root / "originals/README.md")
        shutil.copytree(ROOT / ".dvc/plots", root / ".dvc/plots")
        for name in ("dvc.yaml", ".dvc/config", ".dvc/plots.html", ".dvcignore", ".gitignore"):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
        (root / "params.yaml").write_text(params)
        project = cls(root)
        project.run("git", "init", "--quiet")
        project.commit()
        return project

    def copy(self, root: Path) -> "TinyProject":
        """Copy everything, with outputs, DVC's cache and git's history."""
        shutil.copytree(self.root, root, symlinks=True)
        return TinyProject(root)

    @property
    def environment(self) -> dict[str, str]:
        dvc_folder = self.root.parent / f"{self.root.name}.dvc"
        # A git hook that runs the tests sets variables that lead git to its own repository.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "DVC_SITE_CACHE_DIR": str(dvc_folder / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(dvc_folder / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(dvc_folder / "system"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; with `check`, show what it said where it fails."""
        result = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if check:
            assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, writing all it says to a file."""
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def repro(self, *options: str) -> list[str]:
        """Run `dvc repro` and return the names of the stages that ran (with --dry: would run), in order."""
        return re.findall(r"^Running stage '(.+?)'", self.run("dvc", "repro", *options).stdout, re.MULTILINE)

    def take_seconds(self, other: "TinyProject") -> None:
        """Take over how long another project's runs took; the report keeps it for the same predictions."""
        for path in other.root.glob("reports/*/seconds.csv"):
            target = self.root / path.relative_to(other.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def edit(self, old: str, new: str) -> None:
        """Replace a text that stands in params.yaml once."""
        path = self.root / "params.yaml"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "State")

    def hash_outputs(self) -> dict[str, str]:
        """Return the hash of every file that the stages wrote, but of those that tell the time."""
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in ("data", "models", "reports")
            for path in sorted((self.root / folder).rglob("*"))
            if path.is_file() and not path.is_relative_to(self.root / SECONDS_DIR)
        }

    def read_csv(self, path: str) -> pd.DataFrame:
        return pd.read_csv(self.root / path)

    def find_partials(self) -> list[str]:
        """Return the files that are half-written."""
        return [
            str(path.relative_to(self.root))
            for folder in ("data", "models", "reports")
            for path in (self.root / folder).rglob("*.partial")
        ]
