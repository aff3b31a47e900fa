"""`pneumo serve` in a process of its own that notes what it writes and whom it calls."""

import http.client
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 120  # a guard against hanging
_SCRIPT = """
import json, os, sys

note = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
suspicious = (
    "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate", "tempfile.",
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork",
    "socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "urllib.Request",
)

def watch(event, arguments):
    is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & writing
    if is_write or event.startswith(suspicious):
        os.write(note, f"{event} {arguments}\\n".encode())

sys.addaudithook(watch)
from pneumo.cli import main
from pneumo.prediction import limits
vars(limits).update(json.loads(sys.argv[2]))
sys.exit(main(["serve", *sys.argv[3:]]))
"""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        process: of it.
        port: that it listens on, on 127.0.0.1.
        note: file of what it wrote and whom it called.
    """

    process: subprocess.Popen[str]
    port: int
    note: Path

    @classmethod
    def start(cls, model: Path, folder: Path, **limits: float) -> "Server":
        """Start a server on a free port, in an empty folder, with other values of `prediction.limits`."""
        note = folder / "note.txt"
        working = folder / "working"
        working.mkdir()
        command = [sys.executable, "-c", _SCRIPT, str(note), json.dumps(limits), "--port", "0"]
        process = subprocess.Popen(
            [*command, "--model", str(model.absolute())],
            cwd=working,
            env=os.environ | {"TMPDIR": str(working), "HOME": str(working), "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, f"no server: {line}"
        server = cls(process, int(found[1]), note)
        server.wait_until_up()
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_up(self) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                assert self.get("/health") == (200, b'{"status":"ok"}')
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()

    def read_note(self) -> str:
        return self.note.read_text()

    def clear_note(self) -> None:
        os.truncate(self.note, 0)

    def read_memory_mb(self, key: str = "VmHWM") -> float:
        """Return the largest (VmHWM) or present (VmRSS) resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) / 1000

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, bytes]:
        status, _, body = self.request("GET", path)
        return status, body

    def predict(self, *contents: bytes, query: str = "") -> list[dict[str, Any]]:
        """Predict files that are expected to be answered."""
        body, kind = encode_form([("files", f"{i}.bin", content) for i, content in enumerate(contents)])
        status, _, answer = self.request("POST", f"/v1/predict{query}", body, Content_Type=kind)
        assert status == 200, answer
        return json.loads(answer)["predictions"]

    def send(self, raw: bytes, *, timeout_s: float = 20, cut: bool = False) -> bytes:
        """Send bytes and return all that comes back until the server closes or nothing comes any more.

        Args:
            raw: what to send.
            timeout_s: how long to wait for more.
            cut: say after the last byte that no more will come.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            received = b""
            try:
                connection.sendall(raw)
                if cut:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(1 << 16):
                    received += chunk
            except (ConnectionError, TimeoutError):
                pass
            return received


def encode_form(parts: list[tuple[str, str | None, bytes]]) -> tuple[bytes, str]:
    """Encode (field, file name or None, content) as a form; return its body and its content type."""
    boundary = secrets.token_hex(16)
    body = b""
    for field, name, content in parts:
        named = "" if name is None else f'; filename="{name}"'
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{named}\r\n\r\n'
        body += head.encode("utf-8", "surrogateescape") + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
