"""params.yaml and conf/, composed, checked and turned into dataclasses.

`params.yaml` is the experiment: every key of `Params` stands in it, because DVC watches only what stands
there. A folder of `conf/` (a Hydra group) holds the details of what params.yaml names: `data: {source: x}`
names conf/data/x.yaml, a key of `models` names conf/model/<key>.yaml; what stands beside the name in
params.yaml overrides what stands in the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pneumo.base.errors import PneumoError
from pneumo.base.labels import Task

PARAMS_PATH = Path("params.yaml")
CONF_PATH = Path("conf")
_NAME = re.compile(r"[a-z][a-z0-9_]*")

Schema = TypeVar("Schema")
RunKey = tuple[str, str, int]  # combo, model, seed


class ThresholdMethod(Enum):
    """How the decision threshold is chosen on the validation set."""

    youden = "youden"
    sensitivity = "sensitivity"
    cost = "cost"


class Protocol(Enum):
    """How images are divided.

    Attributes:
        official: the test set is the data set's own; where a table states none, it is carved out.
        folds: cross-validation. Each image is tested once, by a network that has not seen its patient.
    """

    official = "official"
    folds = "folds"


@dataclass
class Split:
    """How images are divided into training, validation and test sets.

    Attributes:
        val_fraction: share of the images outside the test set that validate, in (0, 0.5].
        seed: of the draw.
        protocol: where the test set comes from.
        n_folds: of cross-validation, 2 or more; used by `folds` only.
    """

    val_fraction: float
    seed: int
    protocol: Protocol = Protocol.official
    n_folds: int = 5

    @property
    def has_folds(self) -> bool:
        """Whether runs are cross-validated."""
        return self.protocol is Protocol.folds

    def __post_init__(self) -> None:
        expect(self.n_folds >= 2, "split.n_folds", "2 or more", self.n_folds)
        expect(
            0 < self.val_fraction <= 0.5, "split.val_fraction", "a fraction in (0, 0.5]", self.val_fraction
        )
        expect(self.seed >= 0, "split.seed", "0 or more", self.seed)


@dataclass
class Threshold:
    """The decision threshold, chosen on the validation set.

    Attributes:
        method: `youden` (greatest sensitivity + specificity), `sensitivity` (highest that reaches one) or
            `cost` (least cost of errors).
        sensitivity: the sensitivity to reach, a fraction in (0, 1]; used by that method only.
        cost_ratio: how many false alarms are as bad as one missed case; used by `cost` only.
    """

    method: ThresholdMethod
    sensitivity: float = 0.95
    cost_ratio: float = 5.0

    def __post_init__(self) -> None:
        expect(0 < self.sensitivity <= 1, "threshold.sensitivity", "a fraction in (0, 1]", self.sensitivity)
        expect(0 < self.cost_ratio < float("inf"), "threshold.cost_ratio", "above 0", self.cost_ratio)


@dataclass
class Params:
    """The experiment, as params.yaml states it.

    Attributes:
        experiment: names models/<experiment>/ and reports/<experiment>/.
        data: `source`, a file of conf/data/; `name`, which names data/<name>/, so that data sets of one
            source have folders of their own; and overrides of what stands in the file.
        split: how images are divided.
        image_size_px: height and width of the preprocessed images.
        task: which classes are told apart.
        combos: name -> preprocessing steps, in order; an empty list or dict is the image as it is.
        models: name of a recipe in conf/model/ -> overrides of what stands there.
        seeds: each combo x model is trained once for each.
        ensembles: name -> `combo/model`s whose runs, of all seeds, decide together; runs of one of them
            do so without being named.
        threshold: how the decision threshold is chosen.
        prevalence: share of pneumonia among the children a model would be used on, in (0, 1); decision curves
            are drawn for it.
        equivalence_margin: a difference that is shown to be smaller counts as none that matters, in (0, 1).
        weights_dir: folder with ImageNet weights; Keras downloads those that are not there.
        external: name -> folder of a further test set, with NORMAL and PNEUMONIA; nothing is chosen by it.
    """

    experiment: str
    data: dict[str, Any]
    split: Split
    image_size_px: int
    task: Task
    combos: dict[str, Any]
    models: dict[str, Any]
    seeds: list[int]
    ensembles: dict[str, list[str]]
    threshold: Threshold
    prevalence: float
    equivalence_margin: float
    weights_dir: str
    external: dict[str, str]

    def __post_init__(self) -> None:
        expect_name("experiment", self.experiment)
        expect("source" in self.data, "data", "a `source`, the name of a file in conf/data/", self.data)
        expect("name" in self.data, "data", "a `name`, which names the folder in data/", self.data)
        expect_name("data.source", self.data["source"])
        expect_name("data.name", self.data["name"])
        expect(self.image_size_px >= 16, "image_size_px", "16 or more", self.image_size_px)
        for key, names in (("combos", self.combos), ("models", self.models)):
            expect(len(names) > 0, key, "at least one", names)
            for name in names:
                expect_name(key, name)
        groups = [f"{combo}/{model}" for combo in self.combos for model in self.models]
        for name, members in self.ensembles.items():
            expect_name("ensembles", name)
            for member in members:
                expect(member in groups, f"ensembles.{name}", f"some of {', '.join(groups)}", member)
        for name in self.external:
            expect_name("external", name)
        if self.split.has_folds:
            # A cross-validated run is several networks, and seeds divide the images differently.
            for key, names in (("ensembles", self.ensembles), ("external", self.external)):
                needed = "none with split.protocol: folds, or split.protocol: official"
                expect(not names, key, needed, ", ".join(names))
        expect(0 < self.prevalence < 1, "prevalence", "a fraction in (0, 1)", self.prevalence)
        expect(
            0 < self.equivalence_margin < 1,
            "equivalence_margin",
            "a number in (0, 1)",
            self.equivalence_margin,
        )
        expect(bool(self.weights_dir), "weights_dir", "a folder", self.weights_dir)
        for name, overrides in self.models.items():
            expect(
                overrides is None or isinstance(overrides, dict),
                f"models.{name}",
                "what to override in its recipe, or {}",
                overrides,
            )
        expect(
            len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds) and min(self.seeds) >= 0,
            "seeds",
            "at least one, 0 or more, none twice",
            self.seeds,
        )

    @property
    def source(self) -> str:
        """Name of the data source, a file of conf/data/."""
        return str(self.data["source"])

    @property
    def data_name(self) -> str:
        """Name of the data set, which names data/<name>/ and data/raw/<name>/."""
        return str(self.data["name"])

    @property
    def data_overrides(self) -> dict[str, Any]:
        """What params.yaml sets of conf/data/<source>.yaml."""
        return {key: value for key, value in self.data.items() if key not in ("source", "name")}

    @property
    def ensemble_groups(self) -> dict[str, list[tuple[str, str]]]:
        """Combos and models of each named ensemble."""
        split = {name: [each.split("/") for each in members] for name, members in self.ensembles.items()}
        return {name: [(combo, model) for combo, model in members] for name, members in split.items()}

    @property
    def runs(self) -> list["Run"]:
        """Every combo x model x seed, in the order of params.yaml."""
        return [
            Run(self.experiment, combo, model, seed)
            for combo in self.combos
            for model in self.models
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class Run:
    """One combo x model x seed of an experiment."""

    experiment: str
    combo: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        """The run's name in tables and messages, e.g. `clahe/cnn/0`."""
        return f"{self.combo}/{self.model}/{self.seed}"

    @property
    def key(self) -> RunKey:
        """The run among those of its experiment."""
        return self.combo, self.model, self.seed


def expect(holds: bool, key: str, expected: str, received: object) -> None:
    """Raise a PneumoError that names the key, what was expected and what was received, unless it holds."""
    if not holds:
        raise PneumoError(f"{key}: Expected {expected}. Received: {received!r}")


def expect_name(key: str, name: object) -> None:
    """Check a name that becomes part of a folder and of a DVC stage's name."""
    expect(
        isinstance(name, str) and _NAME.fullmatch(name) is not None,
        key,
        "a name of lower-case letters, digits and _ that begins with a letter",
        name,
    )


def load_params(path: Path = PARAMS_PATH) -> Params:
    """Read params.yaml.

    Raises:
        PneumoError: the file is missing or is no YAML; a key is missing, unknown, of the wrong type, or its
            value is out of range.
    """
    if not path.is_file():
        raise PneumoError(f"Expected {path} in the current folder. Run pneumo from the project's root.")
    try:
        content = OmegaConf.load(path)
    except (YAMLError, UnicodeError) as error:
        raise PneumoError(f"{path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(content, DictConfig):
        raise PneumoError(f"{path}: Expected a mapping of keys to values.")
    missing = [field.name for field in fields(Params) if field.name not in content]
    if missing:
        raise PneumoError(f"{path}: missing {', '.join(missing)}. Compare conf/experiment/demo.yaml.")
    written: Any = OmegaConf.to_container(content, resolve=False)
    empty = [field.name for field in fields(Params) if written[field.name] is None]
    if empty:
        raise PneumoError(f"{path}: {empty[0]}: Expected a value. Received: nothing behind the colon.")
    for key in ("data", "combos", "models", "external"):  # of a list here, OmegaConf would not say the key
        expect(not isinstance(content[key], ListConfig), f"{path}: {key}", "{name: ...}", content[key])
    return build(Params, content, str(path))


def load_group(group: str, name: str, overrides: Mapping[str, Any] | None = None) -> DictConfig:
    """Compose one file of a Hydra group and merge overrides over it.

    Args:
        group: folder of conf/, e.g. `model`.
        name: file in that folder, without `.yaml`.
        overrides: keys to set or add; `build` then says which of them the schema does not know.

    Raises:
        PneumoError: there is no such file, or it is no YAML.
    """
    folder = CONF_PATH / group
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise PneumoError(f"Expected one of the files in {folder}/: {known}. Received: {name}")
    try:
        with initialize_config_dir(str(CONF_PATH.absolute()), version_base=None):
            config = compose(overrides=[f"+{group}={name}"])[group]
    except (YAMLError, UnicodeError, HydraException) as error:
        raise PneumoError(f"{folder}/{name}.yaml: cannot be read: {_one_line(error)}") from error
    OmegaConf.set_struct(config, False)
    config.merge_with(dict(overrides or {}))
    return config


def build(schema: type[Schema], config: Mapping[str, Any] | DictConfig, where: str) -> Schema:
    """Turn a mapping into a dataclass; types are checked here, values by its `__post_init__`.

    Args:
        schema: a dataclass whose types OmegaConf knows.
        config: its keys and values; keys with a default may be left out.
        where: what to name in errors.

    Raises:
        PneumoError: a key is unknown or missing, a type is wrong, or a value is out of range.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), config)
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except PneumoError as error:
        raise PneumoError(f"{where}: {error}") from error
    except OmegaConfBaseException as error:
        raise PneumoError(f"{where}: {_first_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _first_line(error: OmegaConfBaseException) -> str:
    key = f"{error.full_key}: " if error.full_key else ""
    return key + str(error).splitlines()[0]
