"""The `phantom` source: synthetic chest X-rays drawn on this machine, in the layout and naming of Kaggle's.

The images show no person, and results on them say nothing about patients. Size, aspect ratio and borders are
independent of the label. The number of bytes depends on it slightly, because disease adds texture.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from tqdm import tqdm

from pneumo.base.errors import PneumoError
from pneumo.base.labels import SPLITS, Subtype
from pneumo.data.phantom import add_pneumonia, draw_thorax, take_radiograph

# Numbers of images that a patient may have, drawn with equal probability.
_VIEWS_PER_PATIENT = (1, 1, 1, 2, 2, 3)
_JPEG_QUALITIES = (80, 96)


@dataclass
class Settings:
    """What to draw.

    Attributes:
        seed: non-negative; the same seed gives the same files to the byte.
        n_train, n_val, n_test: images in each split, of all classes together.
        pneumonia_fraction: share of pneumonia in each split, in (0, 1).
        bacterial_fraction: share of bacterial among pneumonia, in [0, 1]; the rest is viral.
    """

    seed: int = 0
    n_train: int = 600
    n_val: int = 16
    n_test: int = 600
    pneumonia_fraction: float = 0.6
    bacterial_fraction: float = 0.6

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise PneumoError(f"Expected seed to be 0 or more. Received: {self.seed}.")
        if not 0 < self.pneumonia_fraction < 1:
            raise PneumoError(
                f"Expected pneumonia_fraction above 0 and below 1. Received: {self.pneumonia_fraction}."
            )
        if not 0 <= self.bacterial_fraction <= 1:
            raise PneumoError(
                f"Expected bacterial_fraction from 0 to 1. Received: {self.bacterial_fraction}."
            )
        for split in SPLITS:
            counts = count_images(self, split)
            n_normal = counts[Subtype.NORMAL]
            if not 0 < n_normal < sum(counts.values()):
                raise PneumoError(
                    f"Expected at least one image of each class in {split}. Received: n_{split} = "
                    f"{getattr(self, f'n_{split}')} at pneumonia_fraction = {self.pneumonia_fraction}. "
                    f"Raise n_{split}."
                )


@dataclass(frozen=True)
class Patient:
    """One patient to draw: `names` has a file name for each view."""

    number: int
    split: str
    subtype: Subtype
    names: tuple[str, ...]


def fetch(settings: Settings, target: Path) -> None:
    """Draw all images into an existing empty folder as {split}/{class}/*.jpeg."""
    patients = plan_patients(settings)
    draw = functools.partial(_write_patient, settings.seed, target)
    for folder in {target / _folder(patient) for patient in patients}:
        folder.mkdir(parents=True)
    # OpenCV and NumPy release the interpreter lock, so that threads run in parallel.
    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(draw, patients), desc="draw phantoms", unit="patient", total=len(patients)):
            pass


def list_places(settings: Settings) -> list[PurePosixPath]:
    """Return the paths that `fetch` would give to the files; nothing is drawn."""
    return [_folder(patient) / name for patient in plan_patients(settings) for name in patient.names]


def count_images(settings: Settings, split: str) -> dict[Subtype, int]:
    """Return how many images of each subtype a split has."""
    n_images = getattr(settings, f"n_{split}")
    n_pneumonia = round(n_images * settings.pneumonia_fraction)
    n_bacterial = round(n_pneumonia * settings.bacterial_fraction)
    return {
        Subtype.NORMAL: n_images - n_pneumonia,
        Subtype.BACTERIAL: n_bacterial,
        Subtype.VIRAL: n_pneumonia - n_bacterial,
    }


def plan_patients(settings: Settings) -> list[Patient]:
    """Divide each split's images among patients; a patient is in one split and has one subtype."""
    rng = np.random.default_rng(settings.seed)
    patients: list[Patient] = []
    n_pneumonia_images = 0
    for split in SPLITS:
        for subtype, n_images in count_images(settings, split).items():
            while n_images > 0:
                number = len(patients) + 1
                n_views = min(n_images, int(rng.choice(_VIEWS_PER_PATIENT)))
                if subtype == Subtype.NORMAL:
                    names = _name_normal(number, n_views)
                else:
                    names = _name_pneumonia(number, subtype, n_pneumonia_images + 1, n_views)
                    n_pneumonia_images += n_views
                patients.append(Patient(number, split, subtype, names))
                n_images -= n_views
    return patients


def _name_normal(number: int, n_views: int) -> tuple[str, ...]:
    series = f"{'NORMAL2-' if number % 2 else ''}IM-{number:04d}-0001"
    return tuple(f"{series}{'' if view == 1 else f'-{view:04d}'}.jpeg" for view in range(1, n_views + 1))


def _name_pneumonia(number: int, subtype: Subtype, first_image: int, n_views: int) -> tuple[str, ...]:
    cause = "bacteria" if subtype == Subtype.BACTERIAL else "virus"
    return tuple(f"person{number}_{cause}_{first_image + view}.jpeg" for view in range(n_views))


def _folder(patient: Patient) -> PurePosixPath:
    return PurePosixPath(patient.split, "NORMAL" if patient.subtype == Subtype.NORMAL else "PNEUMONIA")


def _write_patient(seed: int, target: Path, patient: Patient) -> None:
    """Draw one patient's images from random streams of its own, independent of all other patients."""
    streams = np.random.SeedSequence(seed, spawn_key=(patient.number,)).spawn(2 + len(patient.names))
    anatomy, disease, *views = (np.random.default_rng(stream) for stream in streams)
    thorax = draw_thorax(anatomy)
    attenuation = (
        thorax.attenuation
        if patient.subtype == Subtype.NORMAL
        else add_pneumonia(thorax, patient.subtype, disease)
    )
    for name, view in zip(patient.names, views, strict=True):
        image = take_radiograph(attenuation, view)
        quality = int(view.integers(*_JPEG_QUALITIES))
        _, encoded = cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        (target / _folder(patient) / name).write_bytes(encoded.tobytes())
