"""What may leave data/ and models/ of a private data set: no picture, no file name, no patient."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pneumo.base.artifacts import write_text
from pneumo.base.config import Params, load_group
from pneumo.base.paths import DATA_DIR

SALT_PATH = DATA_DIR / ".salt"
HIDDEN = "(not shown)"
_PRIVATE_KINDS = ("local", "table")
_NAME_COLUMNS = ("id", "path", "patient", "test_id", "other_id")
_PATH_KEYS = ("path", "folder", "table", "tables", "split")
_SAME_FILE = re.compile(r"same file as (.+?)(, under another label)?")
_CLASS_FOLDER = "unknown class folder"
_N_DIGITS = 16


def is_private(kind: str, stated: bool | None) -> bool:
    """Return whether a data set is private: as it says, else where it comes from a user's own files.

    Args:
        kind: of its source.
        stated: `private` of its file in conf/data/; None where it says nothing.
    """
    return kind in _PRIVATE_KINDS if stated is None else stated


def has_private_data(params: Params) -> bool:
    """Return whether the data set of an experiment is private."""
    data = load_group("data", params.source, params.data_overrides)
    return is_private(str(data["kind"]), data.get("private"))


def read_salt(path: Path = SALT_PATH) -> bytes:
    """Return the salt of all pseudonyms of this project, drawn when it is first needed.

    Who has the salt can tell whether a name belongs to a pseudonym. It is never committed.
    """
    if not path.is_file():
        write_text(path, secrets.token_hex(32) + "\n")
    return bytes.fromhex(path.read_text(encoding="utf-8").strip())


def hide_name(name: str, salt: bytes) -> str:
    """Return the pseudonym of a name: 16 hexadecimal digits of its HMAC-SHA256.

    Equal names have equal pseudonyms. With 100,000 names, two have the same one with a chance of 3e-10.
    """
    return hmac.new(salt, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:_N_DIGITS]


def hide_names(table: pd.DataFrame, salt: bytes) -> pd.DataFrame:
    """Replace the names of files and patients in a table by pseudonyms.

    Args:
        table: names stand in the columns `id`, `path`, `patient`, `test_id` and `other_id`, and in a `reason`
            that `data` has written.
        salt: as `read_salt` returns it.
    """
    hidden = {
        column: [hide_name(str(name), salt) for name in table[column]]
        for column in _NAME_COLUMNS
        if column in table
    }
    if "reason" in table:
        hidden["reason"] = [_hide_reason(str(reason), salt) for reason in table["reason"]]
    return table.assign(**hidden)


def hide_paths(content: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the places of data in the content of params.yaml.

    Args:
        content: with `data` and `external`.
    """
    data = {key: HIDDEN if key in _PATH_KEYS else value for key, value in content["data"].items()}
    return {**content, "data": data, "external": dict.fromkeys(content["external"], HIDDEN)}


def _hide_reason(reason: str, salt: bytes) -> str:
    if match := _SAME_FILE.fullmatch(reason):
        return f"same file as {hide_name(match[1], salt)}{match[2] or ''}"
    return _CLASS_FOLDER if reason.startswith(_CLASS_FOLDER) else reason
