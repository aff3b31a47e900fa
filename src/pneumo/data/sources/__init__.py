"""Where images come from.

A source is a module with

- `Settings`, a plain dataclass that checks itself and raises a PneumoError: what its file in conf/data/ may
  hold beside `kind` (the module's name), `title` and `synthetic`, which every file there has;
- `fetch(settings, target)`, which fills the existing empty folder `target` with
  {train,val,test}/{NORMAL,PNEUMONIA}/*. Files may lie in further folders below, and need not be images:
  whether a file can be used is decided later. A file that cannot even be brought there is named, with the
  reason, in `target`/rejected.csv. A PneumoError says why there is nothing to fetch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pneumo.base.config import build, load_group
from pneumo.base.errors import PneumoError
from pneumo.data.sources import kaggle, local, phantom

_SOURCES: dict[str, ModuleType] = {"phantom": phantom, "kaggle": kaggle, "local": local}


@dataclass(frozen=True)
class Source:
    """One file of conf/data/, with what params.yaml overrides in it.

    Attributes:
        kind: which module fetches it.
        title: names the data set in reports and figures.
        synthetic: the images are drawn, not taken of patients.
        settings: the module's Settings.
    """

    kind: str
    title: str
    synthetic: bool
    settings: Any


def load_source(name: str, overrides: Mapping[str, Any]) -> Source:
    """Read conf/data/<name>.yaml with overrides.

    Raises:
        PneumoError: there is no such file, or a key or value is not as its kind of source has it.
    """
    config: dict[str, Any] = dict(load_group("data", name, overrides))
    missing = [key for key in ("kind", "title", "synthetic") if key not in config]
    if missing:
        raise PneumoError(f"conf/data/{name}.yaml: missing {', '.join(missing)}.")
    common = {key: config.pop(key) for key in ("kind", "title", "synthetic")}
    settings = build(_source(common["kind"]).Settings, config, f"conf/data/{name}.yaml")
    return Source(**common, settings=settings)


def fetch(source: Source, target: Path) -> None:
    """Fill the existing empty folder `target` with images in Kaggle's layout.

    Raises:
        PneumoError: the images cannot be had; the message says what to do.
    """
    _source(source.kind).fetch(source.settings, target)


def _source(kind: str) -> ModuleType:
    if kind not in _SOURCES:
        raise PneumoError(f"Expected `kind` to be one of {', '.join(_SOURCES)}. Received: {kind}.")
    return _SOURCES[kind]
