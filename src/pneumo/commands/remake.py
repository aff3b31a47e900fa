"""remake: reports/<experiment>/inputs.tar.xz -> the report again, with the code as it is now.

The tables of its data set lie in a pack of their own, in reports/data-sets/.
"""

import contextlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from pneumo.base.artifacts import write_file, write_folder
from pneumo.base.config import CONF_PATH, load_params
from pneumo.base.errors import PneumoError
from pneumo.base.paths import REPORTS_DIR, pack_path, report_dir
from pneumo.commands.pack import read_inputs
from pneumo.stages import compare

_SECONDS_NAME = "seconds.csv"


def run(experiments: list[str]) -> None:
    """Make the reports of experiments again; nothing is trained and no image is needed.

    Args:
        experiments: names; none means all that are packed.

    Raises:
        PneumoError: an experiment is not packed, or its pack is damaged or of other code.
    """
    for experiment in experiments or list_packed():
        remake(experiment, report_dir(experiment))


def list_packed() -> list[str]:
    """Return the names of the experiments that are packed."""
    return sorted(path.parent.name for path in REPORTS_DIR.glob(f"*/{pack_path('*').name}"))


def remake(experiment: str, target: Path) -> None:
    """Make the report of an experiment again.

    Args:
        experiment: its name.
        target: the folder to put it into; what else is there stays.

    Raises:
        PneumoError: see `run`.
    """
    pack, conf, target = pack_path(experiment).absolute(), CONF_PATH.absolute(), target.absolute()
    if not pack.is_file():
        raise PneumoError(
            f"Expected {pack_path(experiment)}. Received: no such file. `pneumo pack` writes it."
        )
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        read_inputs(pack, Path())
        shutil.copytree(conf, CONF_PATH)
        params, report = load_params(), report_dir(experiment)
        if params.experiment != experiment:
            raise PneumoError(f"{pack}: Expected experiment {experiment}. Received: {params.experiment}")
        read = {path.name for path in report.iterdir()} if report.is_dir() else set()
        report.mkdir(parents=True, exist_ok=True)
        if (target / _SECONDS_NAME).is_file():
            shutil.copy(target / _SECONDS_NAME, report)
        compare.run(params)
        for path in sorted(report.iterdir()):
            if path.name not in read:
                _put(path, target / path.name)


def _put(source: Path, target: Path) -> None:
    if source.is_dir():
        with write_folder(target) as partial:
            shutil.copytree(source, partial, dirs_exist_ok=True)
    else:
        with write_file(target) as partial:
            shutil.copy(source, partial)
