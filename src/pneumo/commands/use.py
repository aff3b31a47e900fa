"""use: a file of conf/experiment/ -> params.yaml; the experiment that stood there is kept."""

from pathlib import Path

from pneumo.base.artifacts import write_text
from pneumo.base.config import CONF_PATH, PARAMS_PATH, expect, load_params

EXPERIMENTS = CONF_PATH / "experiment"


def run(experiment: str) -> None:
    """Copy an experiment into params.yaml.

    If no file of conf/experiment/ equals params.yaml, params.yaml is kept there first.

    Args:
        experiment: name of a file in conf/experiment/.

    Raises:
        PneumoError: there is no such file, or it is no experiment.
    """
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    expect(experiment in known, "experiment", f"one of {', '.join(known)}", experiment)
    source = EXPERIMENTS / f"{experiment}.yaml"
    load_params(source)
    if kept := keep_params():
        print(f"Your params.yaml is kept as {kept}; `pneumo use {kept.stem}` brings it back.")
    write_text(PARAMS_PATH, source.read_text(encoding="utf-8"))
    print(f"params.yaml is now {source}.")


def keep_params() -> Path | None:
    """Copy params.yaml to conf/experiment/ unless an equal file is there; return the new file or None."""
    if not PARAMS_PATH.is_file():
        return None
    text = PARAMS_PATH.read_text(encoding="utf-8")
    if any(path.read_text(encoding="utf-8") == text for path in EXPERIMENTS.glob("*.yaml")):
        return None
    numbers = (n for n in range(1, len(list(EXPERIMENTS.glob("*.yaml"))) + 2))
    target = next(path for n in numbers if not (path := EXPERIMENTS / f"kept_{n}.yaml").exists())
    write_text(target, text)
    return target
