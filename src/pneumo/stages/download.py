"""download: any source -> data/raw/<source>/{train,val,test}/{NORMAL,PNEUMONIA}/."""

from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params
from pneumo.base.paths import raw_dir
from pneumo.data import sources


def run(params: Params) -> None:
    """Fetch the images of `data.source`."""
    source = sources.load_source(params.source, params.data_overrides)
    with write_folder(raw_dir(params.data_name)) as folder:
        sources.fetch(source, folder)
    n_files = sum(1 for path in raw_dir(params.data_name).rglob("*") if path.is_file())
    print(f"{source.title}: {n_files} files in {raw_dir(params.data_name)}")
