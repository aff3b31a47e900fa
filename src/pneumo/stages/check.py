"""check: params.yaml, conf/, data and weights, before DVC removes or computes anything -> data/.checked."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pneumo.base.artifacts import write_text
from pneumo.base.config import Params, build, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.messages import hold_messages
from pneumo.base.paths import CHECKED_PATH
from pneumo.base.reproducibility import NVIDIA_DRIVER
from pneumo.data.inventory import describe_external, describe_source
from pneumo.data.sources import load_source, table
from pneumo.preprocessing.combo import Step, find_equal_combos, find_ineffective_limits, parse_combo
from pneumo.training.recipe import Network, Recipe

# Other outputs in data/<name>/, where each combo has a folder, and in data/, where each data set has one.
TAKEN_COMBOS = ("audit", "exploration", "manifest")
TAKEN_DATA = ("raw", "reports")


def run(params: Params) -> None:
    """Check what can be checked in seconds, and print what would run. No image is opened.

    Raises:
        PneumoError: the pipeline could not run; the message names the key or file and says what to do.
    """
    check_names("combos", params.combos, TAKEN_COMBOS)
    check_names("data.name", [params.data_name], TAKEN_DATA)
    source = load_source(params.source, params.data_overrides)
    lines = describe_source(source, params.split)
    if source.kind == "table" and table.note_changes(source.settings, params.data_name):
        lines.append("data: outside originals/, where DVC learns of changed files from pneumo check alone")
    combos = {name: parse_combo(name, steps, params.image_size_px) for name, steps in params.combos.items()}
    lines += describe_combos(combos)
    for model, overrides in params.models.items():
        network = build(Recipe, load_group("model", model, overrides), f"model {model}").network
        lines.append(f"model {model}: {network.name}, {describe_weights(network, Path(params.weights_dir))}")
    for name, path in params.external.items():
        lines.append(f"external test set {name}: {describe_external(name, Path(path).expanduser())}")
    lines.append(describe_device())
    lines.append(f"{len(params.runs)} runs, report in reports/{params.experiment}/")
    write_text(CHECKED_PATH, "checked\n")  # always the same, so that no later stage runs because of it
    print("\n".join(lines))


def check_names(key: str, names: Iterable[str], taken: Sequence[str]) -> None:
    """Raise a PneumoError where a name would take the place of another output."""
    for name in names:
        if name in taken:
            raise PneumoError(
                f"{key}: Expected a name that no other output has. Received: {name}. "
                f"Taken are {', '.join(taken)}."
            )


def describe_combos(combos: Mapping[str, Sequence[Step]]) -> list[str]:
    """Return a line a combo, and warnings on steps without effect and on combos that are the same."""
    lines = []
    for name, steps in combos.items():
        lines.append(f"combo {name}: {' -> '.join(step.name for step in steps)}")
        lines += [f"warning: {text}" for text in find_ineffective_limits(name, steps)]
    for names in find_equal_combos(combos):
        lines.append(f"warning: the combos {', '.join(names)} give the same images")
    return lines


def describe_weights(network: Network, weights_dir: Path) -> str:
    """Say where the first weights of a network come from."""
    if network.pretrained is None:
        return "random weights"
    path = network.find_weights(weights_dir)
    return str(path) if path else "ImageNet weights that Keras downloads"


def describe_device() -> str:
    """Say on what training will compute."""
    if not NVIDIA_DRIVER.exists():
        return "training uses the CPU: no NVIDIA driver was found"
    # Keras takes seconds to import, and without a driver there is nothing to ask it.
    with hold_messages():
        from pneumo.training.devices import find_device

    device = find_device()
    if device.startswith("cpu"):
        return (
            "warning: training uses the CPU, though an NVIDIA driver was found: the backend was installed "
            "without CUDA, see docs/scaling.md"
        )
    return f"training uses {device}"
