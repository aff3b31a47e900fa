"""preprocess: the manifest's files -> data/<source>/<combo>/images.npy."""

from pneumo.base.config import Params
from pneumo.base.paths import images_path, manifest_path
from pneumo.base.tables import read_manifest
from pneumo.preprocessing.arrays import write_images
from pneumo.preprocessing.combo import parse_combo


def run(params: Params, combo: str) -> None:
    """Apply a combo's steps to every image. Only the manifest's paths are looked at."""
    paths = read_manifest(manifest_path(params.source))["path"].tolist()
    steps = parse_combo(combo, params.combos[combo], params.image_size_px)
    target = images_path(params.source, combo)
    write_images(paths, steps, target)
    print(f"{combo}: {' -> '.join(step.name for step in steps)}: {len(paths)} images in {target}")
