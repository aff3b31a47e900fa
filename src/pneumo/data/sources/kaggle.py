"""The `kaggle` source: a public data set of Kaggle, downloaded once into kagglehub's own cache.

Public data sets need no account. If there are credentials, kagglehub sends them. An interrupted download
continues where it stopped when the stage is run again.
"""

import contextlib
import logging
import re
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS, SPLITS
from pneumo.data.sources import layout

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 60.0
_HANDLE = re.compile(r"([\w-]+/[\w-]+)(/versions/\d+)?")


@dataclass
class Settings:
    """The data set to download.

    Attributes:
        handle: `<owner>/<data set>`, with `/versions/<number>` to fix the version.
        counts: split -> class folder -> number of images that the data set is known to have.
    """

    handle: str
    counts: dict[str, dict[str, int]]

    def __post_init__(self) -> None:
        if not _HANDLE.fullmatch(self.handle):
            raise PneumoError(
                f"Expected handle as <owner>/<data set> or <owner>/<data set>/versions/<number>. "
                f"Received: {self.handle}."
            )
        for split, classes in self.counts.items():
            if split not in SPLITS or not set(classes) <= set(CLASS_FOLDERS):
                raise PneumoError(
                    f"Expected counts of {', '.join(SPLITS)}, each of {', '.join(CLASS_FOLDERS)}. "
                    f"Received: {split}: {classes}."
                )


def fetch(settings: Settings, target: Path) -> None:
    """Download the data set, link or copy it into an existing empty folder and check that it is complete."""
    folder = _download(settings.handle)
    layout.arrange(layout.list_folder(folder, _link), target, f"{settings.handle} ({folder})")
    _check_counts(settings, layout.count_images(target), folder)


def list_places(settings: Settings) -> None:
    """Return None: the names of the files are known only after the download."""


def _download(handle: str) -> Path:
    """Return the folder in kagglehub's cache, after downloading what is missing there."""
    import kagglehub  # takes 0.4 s
    from kagglehub.exceptions import DataCorruptionError

    logging.getLogger("kagglehub").setLevel(logging.WARNING)  # does not affect the progress bar
    name = "/".join(handle.split("/")[:2])
    cache = Path(kagglehub.config.get_cache_folder(), "datasets", name)
    by_hand = (
        f"Or download the archive in a browser from https://www.kaggle.com/datasets/{name} and set "
        f"data: {{source: local, name: local, path: <archive>}} in params.yaml."
    )
    # kagglehub's progress bar has no name.
    print(f"{handle} from Kaggle, in {cache} (downloaded once)", file=sys.stderr)
    try:
        with _set_timeout():
            return Path(kagglehub.dataset_download(handle))
    except requests.HTTPError as error:
        raise PneumoError(f"Kaggle refused {handle}: {_explain(error)} {by_hand}") from error
    except requests.RequestException as error:
        raise PneumoError(
            f"The connection to Kaggle failed: {error}. Check the network and run again; an interrupted "
            f"download continues where it stopped. {by_hand}"
        ) from error
    except OSError as error:
        raise PneumoError(
            f"Cannot store the download in {cache}: {error.strerror}. Free disk space there, or set "
            f"KAGGLEHUB_CACHE to another folder, and run again."
        ) from error
    except (DataCorruptionError, zipfile.BadZipFile, ValueError) as error:
        raise PneumoError(
            f"Cannot use {handle} from Kaggle: {error}. If the download is damaged, delete {cache} and run "
            f"again. {by_hand}"
        ) from error


@contextlib.contextmanager
def _set_timeout() -> Iterator[None]:
    """Give every request without a timeout one, for the client of kagglehub sets none and waits for ever."""
    send = requests.Session.send

    def send_with_timeout(
        session: requests.Session, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        if options.get("timeout") is None:
            options["timeout"] = (_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S)
        return send(session, request, **options)

    requests.Session.send = send_with_timeout  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


def _explain(error: requests.HTTPError) -> str:
    status = error.response.status_code if error.response is not None else None
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"no access ({status}). A public data set needs no credentials; wrong or old ones are refused."
    if status == HTTPStatus.NOT_FOUND:
        return f"no such data set ({status}). Correct `handle` in conf/data/."
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return f"too many requests ({status}). Run again in some minutes."
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"an error of its server ({status}). Run again later."
    return f"{error}."


def _link(path: Path, destination: Path) -> None:
    """Link a file where the cache is on the same disk, else copy it."""
    try:
        destination.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, destination)


def _check_counts(settings: Settings, received: Counter[str], folder: Path) -> None:
    expected = Counter(
        {
            f"{split}/{name}": count
            for split, classes in settings.counts.items()
            for name, count in classes.items()
        }
    )
    differences = [
        f"{name} {received[name]} instead of {expected[name]}"
        for name in sorted(expected | received)
        if received[name] != expected[name]
    ]
    if differences:
        raise PneumoError(
            f"Expected {expected.total()} images in {settings.handle}, with the numbers of `counts`. "
            f"Received: {', '.join(differences)}. If {folder} was changed, delete it and run again; "
            f"if the data set has a new version, correct `counts` in conf/data/."
        )
