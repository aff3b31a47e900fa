"""The `local` source: a folder or a zip archive on this machine, in Kaggle's layout or that of version 3.

Files are copied, never linked, so that no change to the copies can reach the originals. Nothing in an archive
can reach beyond the target folder: each entry is read into memory under a limit and written as a plain file.
Entries that are not plain files, such as a link out of the folder, are rejected by name.
"""

import contextlib
import functools
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pneumo.base.errors import PneumoError
from pneumo.data.sources import layout

_MAX_FILE_BYTES = 512 * 2**20
# Radiographs hardly compress. A small blank one may, a larger file with this ratio is a decompression bomb.
_MAX_RATIO, _RATIO_COUNTS_FROM_BYTES = 100, 16 * 2**20
_UNIX_MODE_SHIFT = 16
_ENCRYPTED_FLAG = 0x1


@dataclass
class Settings:
    """Where the images are.

    Attributes:
        path: folder or zip archive; the data set may begin anywhere inside. It is only read.
    """

    path: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise PneumoError(
                "Expected data.path, the folder or zip archive with the images. Received: none. "
                "Set data: {source: local, name: local, path: ...} in params.yaml."
            )


def fetch(settings: Settings, target: Path) -> None:
    """Copy a folder or unpack an archive into an existing empty folder, in Kaggle's layout."""
    with _open(settings) as (files, archive):
        if archive:
            _check_space(archive, target)
        layout.arrange(files, target, settings.path)


def list_places(settings: Settings) -> list[PurePosixPath]:
    """Return the paths that `fetch` would give to the files; only names are read."""
    with _open(settings) as (files, _):
        return layout.list_places(files, settings.path)


@contextlib.contextmanager
def _open(settings: Settings) -> Iterator[tuple[list[layout.SourceFile], zipfile.ZipFile | None]]:
    """Yield the files of a folder or an archive, and the archive where it is one."""
    source = Path(settings.path).expanduser()
    if source.is_dir():
        yield layout.list_folder(source, functools.partial(_copy, source.resolve())), None
    elif source.is_file() and zipfile.is_zipfile(source):
        try:
            archive = zipfile.ZipFile(source)
        except Exception as error:  # a damaged directory raises errors of many kinds
            raise PneumoError(f"Cannot read the archive {source}: {error}. Download it again.") from error
        with archive:
            yield _list_archive(archive), archive
    elif source.exists():
        raise PneumoError(
            f"Expected data.path to be a folder or a zip archive. Received: {source}, which is neither. "
            f"An archive of which only a part was downloaded is not recognised either."
        )
    else:
        raise PneumoError(f"Expected data.path to exist. Received: {source}. Correct it in params.yaml.")


def _copy(folder: Path, path: Path, destination: Path) -> None:
    try:
        if not path.is_file():
            raise layout.RejectedFileError("not a regular file")
        if path.is_symlink() and not path.resolve().is_relative_to(folder):
            raise layout.RejectedFileError("a link out of the folder")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise layout.RejectedFileError(f"larger than {_MAX_FILE_BYTES // 2**20} MB")
        content = path.read_bytes()
    except OSError as error:
        raise layout.RejectedFileError(f"cannot be read: {error.strerror}") from error
    destination.write_bytes(content)


def _list_archive(archive: zipfile.ZipFile) -> list[layout.SourceFile]:
    # `filename` ends at a zero byte, the original name does not. Some archivers separate by backslash.
    names = [(info, info.orig_filename.replace("\\", "/")) for info in archive.infolist()]
    return [
        layout.SourceFile(name, functools.partial(_extract, archive, info))
        for info, name in names
        if not name.endswith("/")
    ]


def _check_space(archive: zipfile.ZipFile, target: Path) -> None:
    needed = sum(info.file_size for info in archive.infolist() if _find_fault(info) is None)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise PneumoError(
            f"Expected {needed / 2**30:.1f} GB of free disk space for {archive.filename} unpacked. "
            f"Received: {free / 2**30:.1f} GB."
        )


def _find_fault(info: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(info.external_attr >> _UNIX_MODE_SHIFT) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device, not a file"
    if info.flag_bits & _ENCRYPTED_FLAG:
        return "encrypted"
    if info.file_size > _MAX_FILE_BYTES:
        return f"larger than {_MAX_FILE_BYTES // 2**20} MB"
    if info.file_size > max(_RATIO_COUNTS_FROM_BYTES, _MAX_RATIO * info.compress_size):
        return f"compressed more than {_MAX_RATIO} to 1"
    return None


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, destination: Path) -> None:
    if fault := _find_fault(info):
        raise layout.RejectedFileError(fault)
    try:
        with archive.open(info) as stream:
            content = stream.read(info.file_size)  # at most this, whatever size the content expands to
    except Exception as error:  # hostile entries raise errors of many kinds
        raise layout.RejectedFileError(f"damaged in the archive: {error or type(error).__name__}") from error
    if len(content) < info.file_size:
        raise layout.RejectedFileError("damaged in the archive: shorter than stated")
    destination.write_bytes(content)
