"""preprocess: the manifest's files -> data/<source>/<combo>/images.npy."""

from pneumo.base.config import Params
from pneumo.base.paths import images_path, manifest_path
from pneumo.base.tables import read_manifest
from pneumo.preprocessing.arrays import write_images
from pneumo.preprocessing.combo import find_ineffective_limits, parse_combo


def run(params: Params, combo: str) -> None:
    """Apply a combo's steps to every image. Of the manifest, only the paths are read."""
    paths = read_manifest(manifest_path(params.data_name))["path"].tolist()
    steps = parse_combo(combo, params.combos[combo], params.image_size_px)
    target = images_path(params.data_name, combo)
    write_images(paths, steps, target, name=f"preprocess {combo}")
    for warning in find_ineffective_limits(combo, steps):
        print(f"warning: {warning}")
    print(f"{combo}: {' -> '.join(step.name for step in steps)}: {len(paths)} images in {target}")
