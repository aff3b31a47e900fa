"""Measure the warning of images unlike those of training: false alarms, and what of other images is noticed.

python benchmarks/unlike.py model.pneumo data/raw/kaggle --output unlike.json
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_sample_images

from pneumo.base.artifacts import write_json
from pneumo.base.labels import Subtype
from pneumo.data import phantom
from pneumo.data.decoding import IMAGE_SUFFIXES, UnreadableImageError, decode_image
from pneumo.prediction.bundle import Bundle
from pneumo.prediction.predictor import BATCH_SIZE, Predictor
from pneumo.preprocessing.combo import apply_steps

Image = npt.NDArray[np.uint8]

SEED = 0
N_DRAWN = 60
N_CROPS = 6  # of each photo
SIZE_PX = 224
CROP_FRACTIONS = (0.35, 0.9)


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a bundle")
    parser.add_argument("folder", type=Path, help="of its data: {test}/{NORMAL,PNEUMONIA}/")
    parser.add_argument("--photos", type=Path, help="a folder of photos, besides the two of scikit-learn")
    parser.add_argument("--n-images", type=int, help="of the test set (default: all)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    test = [decode_image(path.read_bytes()).pixels for path in list_files(args.folder / "test")]
    if not test:
        parser.error(f"Expected image files in {args.folder}/test. Received: none")
    test = [test[i] for i in np.random.default_rng(SEED).permutation(len(test))][: args.n_images]
    predictor = Predictor(Bundle(args.model))
    fractions = {}
    print(f"{'images':22}{'n':>6}{'warned of':>12}{'median distance':>18}")
    for name, images in collect(test, args.photos).items():
        distances = measure(predictor, images)
        fractions[name] = {
            "n": len(images),
            "warned": float(np.mean(distances > 1)),
            "median": float(np.median(distances)),
        }
        row = fractions[name]
        print(f"{name:22}{row['n']:6}{row['warned']:12.3f}{row['median']:18.2f}")
    if args.output:
        write_json(args.output, {"runs": predictor.card.runs, "sets": fractions})


def list_files(folder: Path) -> list[Path]:
    """Return the image files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def collect(test: list[Image], photos: Path | None) -> dict[str, list[Image]]:
    """Return what to measure on: the test set itself, other images, and changed images of the test set."""
    generator = np.random.default_rng(SEED)
    whole = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in load_sample_images().images]
    whole += list(read_photos(photos)) if photos else []
    return {
        "test set": test,
        "photos": whole,
        "crops of photos": [crop(each, generator) for each in whole for _ in range(N_CROPS)],
        "noise": [draw_noise(i, generator) for i in range(N_DRAWN)],
        "phantoms": [draw_phantom(i) for i in range(N_DRAWN)],
        "inverted": [255 - each for each in test],
        "upside down": [each[::-1] for each in test],
        "lying on the side": [np.rot90(each) for each in test],
        "one quarter": [each[: each.shape[0] // 2, : each.shape[1] // 2] for each in test],
        "a third darker": [(each * 0.65).astype(np.uint8) for each in test],
    }


def read_photos(folder: Path) -> Iterator[Image]:
    """Yield the photos of a folder that can be read."""
    for path in list_files(folder):
        try:
            yield decode_image(path.read_bytes()).pixels
        except UnreadableImageError as error:
            print(f"{path.name}: left out: {error}")


def crop(image: Image, generator: np.random.Generator) -> Image:
    """Cut a random part out of an image."""
    height, width = (int(n * generator.uniform(*CROP_FRACTIONS)) for n in image.shape)
    top, left = (
        generator.integers(0, image.shape[0] - height + 1),
        generator.integers(0, image.shape[1] - width + 1),
    )
    return image[top : top + height, left : left + width]


def draw_noise(number: int, generator: np.random.Generator) -> Image:
    """Draw noise of one of four kinds: of pixels, of a normal distribution, blurred, and none (one grey)."""
    size = (SIZE_PX, SIZE_PX)
    kind = number % 4
    if kind == 0:
        return generator.integers(0, 256, size, dtype=np.uint8)
    if kind == 1:
        return np.clip(generator.normal(128, 40, size), 0, 255).astype(np.uint8)
    if kind == 2:
        blurred = cv2.GaussianBlur(generator.normal(size=size), (0, 0), generator.uniform(1, 30))
        return cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return np.full(size, generator.integers(0, 256), np.uint8)


def draw_phantom(number: int) -> Image:
    """Draw a phantom, every other one with pneumonia."""
    generator = np.random.default_rng(number)
    thorax = phantom.draw_thorax(generator)
    attenuation = thorax.attenuation
    if number % 2:
        attenuation = phantom.add_pneumonia(thorax, Subtype.BACTERIAL, generator)
    return phantom.take_radiograph(attenuation, generator)


def measure(predictor: Predictor, images: list[Image]) -> npt.NDArray[np.float64]:
    """Return the distance of each image from the training images."""
    steps = predictor.card.steps
    ready = np.stack([apply_steps(np.ascontiguousarray(each), steps) for each in images])
    batches = range(0, len(ready), BATCH_SIZE)
    verdicts = [each for start in batches for each in predictor.judge(ready[start : start + BATCH_SIZE])]
    return np.array([np.nan if each.novelty is None else each.novelty for each in verdicts])


if __name__ == "__main__":
    main()
