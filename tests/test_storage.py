"""Outputs on an S3 storage: what a clone gets, and what a broken connection and a full disk leave.

These need the extra `s3` and moto: `make test-s3`.
"""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tiny_project import TinyProject

boto3 = pytest.importorskip("boto3")
pytest.importorskip("dvc_s3")
s3_server = pytest.importorskip("s3_server", exc_type=ImportError)

pytestmark = pytest.mark.promise

BUCKET = "bucket"
SPARE_KB = 500  # of disk space, where outputs take more
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "bash", "-c")


@pytest.fixture
def s3(monkeypatch):
    for name, value in s3_server.SETTINGS.items():
        monkeypatch.setenv(name, value)
    with s3_server.serve() as server:
        connect(server).create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def stored(project, s3):
    """Return the finished project with the server as its storage, nothing pushed yet."""
    project.run("dvc", "remote", "add", "--default", "storage", f"s3://{BUCKET}/pneumo")
    project.run("dvc", "remote", "modify", "storage", "endpointurl", s3.url)
    project.commit()
    return project


def connect(server):
    return boto3.client("s3", endpoint_url=server.url)


def clone(project, root):
    subprocess.run(["git", "clone", "--quiet", project.root, root], check=True)
    return TinyProject(root)


def check_objects(server):
    """Check that every object is complete: DVC names each by the hash of its content. Return their number."""
    client = connect(server)
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    for key in keys:
        content = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        name = "".join(Path(key).parts[-2:]).removesuffix(".dir")
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == name
    return len(keys)


def expect_failure(result, reason):
    assert result.returncode != 0
    assert "ERROR" in result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_a_fresh_clone_pulls_and_runs_nothing(stored, tmp_path):
    stored.run("dvc", "push")
    copy = clone(stored, tmp_path / "clone")
    copy.run("dvc", "pull")
    assert copy.hash_outputs() == stored.hash_outputs()
    assert copy.repro() == []


def test_a_connection_that_breaks_loses_nothing(stored, s3, tmp_path):
    outputs = stored.hash_outputs()
    s3.cut_after = 20
    expect_failure(stored.run("dvc", "push", check=False), s3.url)
    s3.cut_after = None
    n_pushed = check_objects(s3)
    assert 0 < n_pushed <= 20
    assert stored.hash_outputs() == outputs
    stored.run("dvc", "push")
    assert check_objects(s3) > n_pushed

    copy = clone(stored, tmp_path / "clone")
    s3.cut_after = 20
    expect_failure(copy.run("dvc", "pull", check=False), s3.url)
    s3.cut_after = None
    copy.run("dvc", "pull")
    assert copy.hash_outputs() == outputs
    assert copy.repro() == []


def test_a_storage_that_does_not_answer_is_named(stored, s3):
    outputs = stored.hash_outputs()
    s3.cut_after = 0
    expect_failure(stored.run("dvc", "push", check=False), s3.url)
    shutil.rmtree(stored.root / "models")
    expect_failure(stored.run("dvc", "fetch", "--run-cache", check=False), s3.url)
    # What DVC's cache holds needs no storage.
    stored.run("dvc", "checkout")
    assert stored.hash_outputs() == outputs
    assert stored.repro() == []


FULL_DISK = f"""
mount -t tmpfs -o size=500m tmpfs "$DISK" || exit 77
git clone --quiet "$PROJECT" "$DISK/clone" && cd "$DISK/clone" || exit 1
export PYTHONPATH="$PWD/src" PYTHONDONTWRITEBYTECODE=1
fill_disk() {{
  mount -o remount,size=$(($(df --output=used -k "$DISK" | tail -n 1) + $1))k "$DISK"
}}
fill_disk {SPARE_KB}
echo "pull on a full disk"; dvc pull 2>&1; echo "status $?"
mount -o remount,size=500m "$DISK"
echo "pull again"; dvc pull 2>&1; echo "status $?"
echo "repro"; dvc repro 2>&1; echo "status $?"
rm data/phantom/raw/images.npy
fill_disk 40
echo "stage on a full disk"; dvc repro --force --single-item preprocess@raw 2>&1; echo "status $?"
mount -o remount,size=500m "$DISK"
echo "repro again"; dvc repro 2>&1; echo "status $?"
find . -name "*.partial"
git status --porcelain
sha256sum $(git ls-files reports) data/phantom/*/images.npy
"""


def test_a_full_disk_loses_nothing(stored, tmp_path):
    stored.run("dvc", "push")
    disk = tmp_path / "disk"
    disk.mkdir()
    result = stored.run(
        "env", f"DISK={disk}", f"PROJECT={stored.root}", *IN_NAMESPACE, FULL_DISK, check=False
    )
    if "unshare" in result.stderr or result.returncode == 77:
        pytest.skip(f"needs a disk of its own in a namespace of its own: {result.stderr}")
    said = dict(
        re.findall(r"^(pull.*|repro.*|stage.*)\n((?:.*\n)*?status \d+)$", result.stdout, re.MULTILINE)
    )
    assert re.search(r"No space left on device(.*\n)+status [^0]", said["pull on a full disk"])
    assert said["pull again"].endswith("status 0")
    assert "Running stage" not in said["repro"]
    assert said["repro"].endswith("status 0")
    full = said["stage on a full disk"]
    assert "pneumo: Expected free disk space. Received: No space left on device" in full
    assert "Traceback" not in full
    assert not full.endswith("status 0")
    assert said["repro again"].endswith("status 0")
    hashes = {
        path: digest for digest, path in re.findall(r"^([0-9a-f]{64})  (.+)$", result.stdout, re.MULTILINE)
    }
    expected = stored.hash_outputs()
    assert len(hashes) > 10
    assert {path: expected[path] for path in hashes} == hashes
    assert ".partial" not in result.stdout
