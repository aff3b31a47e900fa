"""Where the stages put what they make."""

from pathlib import Path

from pneumo.base.config import Run

DATA_DIR = Path("data")
MODELS_DIR = Path("models")
REPORTS_DIR = Path("reports")
FEATURE_CACHE_DIR = DATA_DIR / ".features"
CHECKED_PATH = DATA_DIR / ".checked"
FINGERPRINTS_PATH = DATA_DIR / ".fingerprints.csv"
# Images and tables of one's own, which DVC watches.
ORIGINALS_DIR = Path("originals")
# In a data set's raw folder, where the images lie elsewhere: one row an image.
TABLE_NAME = "table.csv"
# In a data set's raw folder: the files that `download` could not bring there, and why.
REJECTED_NAME = "rejected.csv"


def raw_dir(data: str) -> Path:
    """Folder of a data set's files, in Kaggle layout."""
    return DATA_DIR / "raw" / data


def manifest_path(data: str) -> Path:
    """The table of a data set's images."""
    return DATA_DIR / data / "manifest.csv"


def exploration_dir(data: str) -> Path:
    """Folder of the lists and sample images that `prepare` makes of a data set."""
    return DATA_DIR / data / "exploration"


def images_path(data: str, combo: str) -> Path:
    """The preprocessed images of a combo, row i for row i of the manifest."""
    return DATA_DIR / data / combo / "images.npy"


def samples_path(data: str, combo: str) -> Path:
    """A few of a combo's preprocessed images, to be looked at."""
    return DATA_DIR / data / combo / "samples.npy"


def audit_dir(data: str) -> Path:
    """Folder of what `audit` found in a data set's images."""
    return DATA_DIR / data / "audit"


def weights_record_path(model: str) -> Path:
    """The file that says which ImageNet weights a recipe starts from."""
    return MODELS_DIR / ".weights" / f"{model}.json"


def run_dir(run: Run) -> Path:
    """Folder of a run's model.keras, history.csv, predictions.csv, run.json and perhaps views.webp."""
    return MODELS_DIR / run.experiment / run.combo / run.model / str(run.seed)


def run_seconds_path(run: Run) -> Path:
    """The file that says how long training took; not in `run_dir`, which holds the same bytes each time."""
    return MODELS_DIR / ".seconds" / run.experiment / run.combo / run.model / f"{run.seed}.json"


def run_report_dir(run: Run) -> Path:
    """Folder of a run's metrics.json and curves."""
    return report_dir(run.experiment) / "runs" / run.combo / run.model / str(run.seed)


def explanations_dir(experiment: str, combo: str) -> Path:
    """Folder of what `explain` found of a combo's models."""
    return report_dir(experiment) / "explanations" / combo


def gallery_path(run: Run) -> Path:
    """The sheet of test images on which a run decides in an instructive way."""
    return explanations_dir(run.experiment, run.combo) / f"{run.model}_{run.seed}.webp"


def external_dir(experiment: str, combo: str) -> Path:
    """Folder of what a combo's models predict for the external test sets."""
    return report_dir(experiment) / "external" / combo


def tuning_dir(experiment: str) -> Path:
    """Folder of what `pneumo tune` found, a folder a recipe."""
    return report_dir(experiment) / "tuning"


def learning_rate_dir(experiment: str) -> Path:
    """Folder of what `pneumo find-rate` found, a folder a recipe and phase."""
    return report_dir(experiment) / "learning_rate"


def pack_path(experiment: str) -> Path:
    """The file that an experiment's report can be made from again."""
    return report_dir(experiment) / "inputs.tar.xz"


def full_report_dir(experiment: str) -> Path:
    """Folder of the report of a private data set with pictures and names; git ignores it."""
    return DATA_DIR / "reports" / experiment


def report_dir(experiment: str) -> Path:
    """Folder of an experiment's report."""
    return REPORTS_DIR / experiment
