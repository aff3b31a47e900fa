"""serve: a bundle -> a page in the browser, and predictions over HTTP."""

import ipaddress
import os
import socket
import sys
from pathlib import Path

from pneumo.base.errors import PneumoError
from pneumo.commands.predict import find_model
from pneumo.prediction.bundle import Bundle

_LARGEST_PORT = 65535
_LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]", "::1"]


def run(model: Path | None = None, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a model until the process is stopped.

    Args:
        model: a file that `pneumo export` wrote; None takes the released model.
        host: address to listen on. Other machines reach the server where it is not of this machine alone.
        port: 0 takes any that is free.

    Raises:
        PneumoError: what serving needs is not installed, the model cannot be loaded, or the address cannot be
            listened on.
    """
    try:
        import uvicorn

        from pneumo.prediction.limits import LimitedProtocol
        from pneumo.prediction.server import NOTE, build_app
    except ModuleNotFoundError as error:
        raise PneumoError(
            f"Expected the package {error.name}. Received: none. `pip install 'pneumo[serve]'`"
        ) from error
    listener = listen(host, port)
    with listener:
        is_local = is_loopback(host)
        app = build_app(Bundle(find_model(model)), _LOOPBACK_NAMES if is_local else ["*"])
        shown = f"[{host}]" if ":" in host else host
        print(f"Serving on http://{shown}:{listener.getsockname()[1]} until Ctrl+C. {NOTE}", flush=True)
        if not is_local:
            print(
                "Other machines can reach it; it asks for no password and does not encrypt.", file=sys.stderr
            )
        config = uvicorn.Config(
            app,
            http=LimitedProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        PneumoError: the address is none of this machine's, or the port is taken or not allowed.
    """
    if not 0 <= port <= _LARGEST_PORT:
        raise PneumoError(f"--port: Expected 0 to {_LARGEST_PORT}. Received: {port}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise PneumoError(f"Expected a free address. Received: {host}:{port} ({reason})") from error


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
