"""Where images come from.

A source is a module with

- `Settings`, a plain dataclass that checks itself and raises a PneumoError: the keys that its file in
  conf/data/ may have besides those of every file there, which are `kind` (the module's name), `title`,
  `synthetic`, `patients` and `private`;
- `fetch(settings, target)`, which fills the existing empty folder `target` with
  {train,val,test}/{NORMAL,PNEUMONIA}/*. Files may lie in further folders below, and need not be images:
  `data.manifest` decides later which files can be used. A file that cannot be copied is listed, with the
  reason, in `target`/rejected.csv. A PneumoError says why there is nothing to fetch. Where images stay
  where they are, `target`/table.csv says where;
- `list_places(settings)`, which returns the paths that `fetch` would give to the files, relative to
  `target`, without reading a file; None where they are known only after a download. Only the module
  `table` has `read_rows` in its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from pneumo.base.config import build, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.privacy import is_private
from pneumo.data.manifest import Patients
from pneumo.data.sources import kaggle, local, phantom, table

_SOURCES: dict[str, ModuleType] = {"phantom": phantom, "kaggle": kaggle, "local": local, "table": table}


@dataclass
class Source:
    """One file of conf/data/, with the overrides of params.yaml.

    Attributes:
        kind: the module that fetches the images.
        title: name of the data set in reports and figures.
        synthetic: the images are drawn, not taken of patients.
        patients: where the patient of an image is read from.
        private: no picture, file name or patient may stand in a report; None in the file means that the kind
            decides: `local` and `table` are private.
        settings: the module's Settings.
    """

    kind: str
    title: str
    synthetic: bool
    patients: Patients = Patients.from_name
    private: bool | None = None
    settings: Any = None


def load_source(name: str, overrides: Mapping[str, Any]) -> Source:
    """Read conf/data/<name>.yaml with overrides.

    Raises:
        PneumoError: there is no such file, or a key or value is not one that its kind of source takes.
    """
    where = f"conf/data/{name}.yaml"
    config: dict[str, Any] = dict(load_group("data", name, overrides))
    missing = [key for key in ("kind", "title", "synthetic") if key not in config]
    if missing:
        raise PneumoError(f"{where}: missing {', '.join(missing)}.")
    keys: list[str] = ["kind", "title", "synthetic", "patients", "private"]
    common = {key: config.pop(key) for key in keys if key in config}
    source = build(Source, common, where)
    unfit = Patients.from_name if source.kind == "table" else Patients.from_table
    if source.patients is unfit:
        fit = ", ".join(each for each in Patients if each is not unfit)
        raise PneumoError(f"{where}: Expected patients to be one of {fit}. Received: {unfit}.")
    source.private = is_private(source.kind, source.private)
    source.settings = build(_find_module(source.kind).Settings, config, where)
    return source


def fetch(source: Source, target: Path) -> None:
    """Fill the existing empty folder `target` with images in Kaggle's layout.

    Raises:
        PneumoError: the images cannot be fetched; the message says what to do.
    """
    _find_module(source.kind).fetch(source.settings, target)


def list_places(source: Source) -> list[PurePosixPath] | None:
    """Return the paths that `fetch` would give to the files, relative to its target.

    No file is read. None where the paths are known only after a download.

    Raises:
        PneumoError: there is nothing to fetch; the message says what to do.
    """
    return _find_module(source.kind).list_places(source.settings)


def _find_module(kind: str) -> ModuleType:
    if kind not in _SOURCES:
        raise PneumoError(f"Expected `kind` to be one of {', '.join(_SOURCES)}. Received: {kind}.")
    return _SOURCES[kind]
