"""A server on this machine that plays Kaggle's part when kagglehub downloads a public data set.

The interface answers POST requests of the client's remote calls; a download redirects to a storage server,
which knows byte ranges and sends an MD5 checksum, as Kaggle's does.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import pytest
from kagglesdk import kaggle_env

_SERVICE = "/api/v1/datasets.DatasetApiService/"
_STORAGE = "/storage/archive.zip"


@dataclass
class FakeKaggle:
    """What the server gives, and what it was asked.

    Attributes:
        archive: content of the zip archive of the data set.
        version: number of the current version.
        status: answer of the interface; anything but 200 is an error.
        break_after_bytes: the next download breaks off after so many bytes.
        checksum: send the checksum of the archive.
        calls: names of the remote calls, in order.
        requests: bodies of the remote calls.
        ranges: Range header of each request to the storage, "" where it had none.
        credentials: Authorization header of each remote call, "" where it had none.
    """

    archive: bytes
    version: int = 2
    status: int = HTTPStatus.OK
    break_after_bytes: int | None = None
    checksum: bool = True
    url: str = ""
    calls: list[str] = field(default_factory=list)
    requests: list[dict[str, object]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)


@contextmanager
def serve(archive: bytes) -> Iterator[FakeKaggle]:
    """Run a server on a free port of 127.0.0.1."""
    kaggle = FakeKaggle(archive)

    class Handler(_Handler):
        fake = kaggle

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kaggle.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield kaggle
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def replace_kaggle(archive: bytes, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[FakeKaggle]:
    """Run a server from which this process downloads, without an account, into a cache below a folder."""
    for name in ("HOME", "KAGGLE_CONFIG_DIR", "KAGGLEHUB_CACHE"):
        monkeypatch.setenv(name, str(home / name))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    with serve(archive) as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, server.url)
        yield server


class _Handler(http.server.BaseHTTPRequestHandler):
    fake: FakeKaggle

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = self.path.removeprefix(_SERVICE)
        fake.calls.append(call)
        fake.requests.append(body)
        fake.credentials.append(self.headers.get("Authorization", ""))
        if fake.status != HTTPStatus.OK:
            self._send_json({"code": fake.status, "message": "as the test wants it"}, fake.status)
        elif call == "GetDataset":
            self._send_json({"currentVersionNumber": fake.version}, HTTPStatus.OK)
        elif call == "DownloadDataset":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", fake.url + _STORAGE)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_GET(self) -> None:
        fake = self.fake
        if self.path != _STORAGE:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        wanted = self.headers.get("Range", "")
        fake.ranges.append(wanted)
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(match[1]) if match else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if match else HTTPStatus.OK)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(fake.archive) - 1}/{len(fake.archive)}")
        self.send_header("Content-Type", "application/zip")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(fake.archive) - start))
        if fake.checksum:
            checksum = base64.b64encode(hashlib.md5(fake.archive, usedforsecurity=False).digest()).decode()
            self.send_header("X-Goog-Hash", f"crc32c=AAAAAA==,md5={checksum}")
        self.end_headers()
        stop, fake.break_after_bytes = fake.break_after_bytes, None
        self.wfile.write(fake.archive[start : None if stop is None else start + stop])
        self.close_connection = True

    def _send_json(self, content: dict[str, object], status: int) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
