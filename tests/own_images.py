"""A folder of DICOM files with a CSV file, as a hospital may have it; the images show nothing."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicom_files import dicom
from hostile import draw_image

COLUMNS = ("path", "label", "patient", "view", "age", "sex", "site")


@dataclass(frozen=True)
class OwnImage:
    """One image and its row of the table."""

    path: str
    label: str
    patient: str
    view: str
    age: str
    sex: str
    site: str


def plan_images(n_patients: int = 60, seed: int = 0) -> list[OwnImage]:
    """Plan the images of patients, every fourth of whom has two."""
    generator = np.random.default_rng(seed)
    images = []
    for number in range(n_patients):
        label = ("normal", "pneumonia")[number % 2]
        patient, sex = f"MRN-{7_000_000 + 37 * number}", str(generator.choice(["F", "M"]))
        age, site = str(generator.integers(1, 90)), ("north", "south")[number // 2 % 2]
        for part in range(1 + (number % 4 == 0)):
            path = f"ward {number % 3}/Müller_{number:03}_{part}.dcm"
            images.append(OwnImage(path, label, patient, ("PA", "AP")[part], age, sex, site))
    return images


def write_images(folder: Path, images: list[OwnImage]) -> None:
    """Write a DICOM file for each image, brighter where there is pneumonia."""
    for number, image in enumerate(images):
        pixels = draw_image(number, 48, 40) // 2
        pixels[12:36, 10:30] += 90 if image.label == "pneumonia" else 0
        path = folder / image.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom(pixels, PatientID=image.patient, ViewPosition=image.view))


def write_table(path: Path, images: list[OwnImage]) -> None:
    """Write the table of the images as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(image, column) for column in COLUMNS] for image in images)
