"""download: any source -> data/raw/<name>/, images in Kaggle's layout or a table that says where they are."""

from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params
from pneumo.base.paths import TABLE_NAME, raw_dir
from pneumo.data import sources
from pneumo.data.manifest import read_rows


def run(params: Params) -> None:
    """Fetch the images of `data.source`."""
    source = sources.load_source(params.source, params.data_overrides)
    with write_folder(raw_dir(params.data_name)) as folder:
        sources.fetch(source, folder)
    raw = raw_dir(params.data_name)
    if (raw / TABLE_NAME).is_file():
        print(f"{source.title}: a table of {len(read_rows(raw / TABLE_NAME))} images in {raw}")
    else:
        print(f"{source.title}: {sum(1 for path in raw.rglob('*') if path.is_file())} files in {raw}")
