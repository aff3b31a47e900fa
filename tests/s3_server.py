"""A server on this machine that plays S3's part, and whose connections can be cut. moto does the work."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "2",  # so that a test does not wait for long
}


@dataclass
class FakeS3:
    """The server, between two tries of its client.

    Attributes:
        url: where it answers.
        cut_after: objects that still come through before every connection is cut; None for all.
        methods: HTTP methods of the requests for an object, in order.
    """

    url: str = ""
    cut_after: int | None = None
    methods: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def let_through(self, method: str, path: str) -> bool:
        """Count a request, and say whether it is answered."""
        is_object = method in ("GET", "PUT", "POST") and path.count("/") > 2
        with self.lock:
            if self.cut_after == 0:
                return False
            if is_object:
                self.methods.append(method)
                self.cut_after = None if self.cut_after is None else self.cut_after - 1
        return True


class QuietHandler(WSGIRequestHandler):
    """Answers requests without a line on each."""

    def log(self, *_: object) -> None:
        """Stay quiet."""


@contextmanager
def serve() -> Iterator[FakeS3]:
    """Run a server on a free port of 127.0.0.1."""
    fake, moto = FakeS3(), DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if fake.let_through(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            return moto(environ, start_response)
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=QuietHandler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        # Every server of a process shares moto's objects.
        requests.post(f"{fake.url}/moto-api/reset", timeout=60).raise_for_status()
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
