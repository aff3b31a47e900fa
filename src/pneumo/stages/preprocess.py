"""preprocess: the manifest's files -> data/<name>/<combo>/{images.npy, samples.npy}."""

import numpy as np

from pneumo.base.artifacts import write_array
from pneumo.base.config import Params
from pneumo.base.paths import images_path, manifest_path, samples_path
from pneumo.base.tables import read_manifest
from pneumo.preprocessing.arrays import draw_samples, write_images
from pneumo.preprocessing.combo import find_ineffective_limits, parse_combo


def run(params: Params, combo: str) -> None:
    """Apply a combo's steps to every image, and keep a few to look at."""
    manifest = read_manifest(manifest_path(params.data_name))
    paths = manifest["path"].tolist()
    steps = parse_combo(combo, params.combos[combo], params.image_size_px)
    target = images_path(params.data_name, combo)
    write_images(paths, steps, target, name=f"preprocess {combo}")
    samples = draw_samples(np.load(target, mmap_mode="r"), manifest)
    write_array(samples_path(params.data_name, combo), samples)
    for warning in find_ineffective_limits(combo, steps):
        print(f"warning: {warning}")
    print(f"{combo}: {' -> '.join(step.name for step in steps)}: {len(paths)} images in {target}")
