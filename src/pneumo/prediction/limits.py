"""What bounds the memory and the time that a server spends on clients, whatever they send."""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512
MAX_WAITING = 128  # requests whose files have arrived and wait for the network
MAX_FILES = 16  # in a request
MAX_REQUEST_BYTES = 64_000_000
MAX_BYTES_IN_FLIGHT = 256_000_000  # of all requests together
MAX_PIXELS = 30_000_000  # of an image; radiographs have up to about 20
HEADER_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 1.0  # for the rest of a form that has been refused

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_HEADERS = [
    (b"content-security-policy", b""),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI starts with a script in its page and sets styles.
_POLICY_OF_DOCS = _POLICY.replace(b"-src 'self';", b"-src 'self' 'unsafe-inline';", 2)


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        reason: for people.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class LimitedProtocol(H11Protocol):
    """HTTP that closes connections beyond MAX_CONNECTIONS, and those that take too long to ask for something.

    uvicorn itself waits for ever for the header of a request.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Watch a new connection."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.write(_BUSY)
            transport.close()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what a client sent."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Budget:
    """Counts something that requests hold together, and refuses what goes beyond a limit.

    Args:
        limit: how much there may be at a time.

    Attributes:
        used: how much there is.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, amount: int) -> None:
        """Count an amount; a negative one is given back.

        Raises:
            RefusedError: there would be too much.
        """
        if self.used + amount > self._limit:
            raise RefusedError(503, "Too much to do at the moment. Try again in a second.")
        self.used += amount


class Share:
    """What one request holds of a budget, until the block ends.

    Args:
        budget: of all requests.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._amount = 0

    def __enter__(self) -> "Share":
        """Hold nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give all back."""
        self._budget.take(-self._amount)
        self._amount = 0

    def grow_to(self, amount: int) -> None:
        """Hold an amount, or more if more is held already.

        Raises:
            RefusedError: all requests together would hold too much.
        """
        if amount > self._amount:
            self._budget.take(amount - self._amount)
            self._amount = amount


class Guard:
    """Adds headers that keep a browser from loading anything from elsewhere, and ends requests that last.

    Args:
        app: what answers.
        docs_url: of the page that describes the interface.
    """

    def __init__(self, app: ASGIApp, docs_url: str) -> None:
        self._app = app
        self._docs_url = docs_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        policy = _POLICY_OF_DOCS if scope.get("path") == self._docs_url else _POLICY
        has_started = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                added: list[Any] = [(name, value or policy) for name, value in _HEADERS]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._app(scope, receive, send_guarded)
        except TimeoutError:
            if has_started:
                raise
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send_guarded({"type": "http.response.start", "status": 503, "headers": headers})
            await send_guarded({"type": "http.response.body", "body": b""})
