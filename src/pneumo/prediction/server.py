"""A bundle over HTTP: a page for people, JSON for programs, counters for Prometheus.

Nothing that a client sends is written to disk, kept after its answer, or logged; nothing is fetched from
elsewhere, by the server or by the page.
"""

import asyncio
import base64
import contextlib
import importlib.resources
import io
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import prometheus_client
from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from PIL import Image as Pillow
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from pneumo.base.errors import PneumoError
from pneumo.base.labels import Subtype
from pneumo.data import phantom
from pneumo.data.decoding import UnreadableImageError
from pneumo.prediction import limits
from pneumo.prediction.bundle import Bundle, Card
from pneumo.prediction.explainer import Explainer, can_explain, colour_map
from pneumo.prediction.limits import Budget, Guard, RefusedError, Share
from pneumo.prediction.predictor import Predictor, Verdict
from pneumo.preprocessing.steps import Image

DOCS_URL = "/docs"
NOTE = "For research and teaching. Not a medical device."
_N_DECODERS = 2  # what each may hold in memory is bounded by limits.MAX_PIXELS
_N_NAME_CHARACTERS = 255
_PAGE_FILES = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
_PAGE_FILES |= {"/page.css": ("page.css", "text/css")}
_IMAGE_TEXT = "Add what the network saw, as PNG in base64."
_MAP_TEXT = "Add where it found what speaks for its class, as PNG in base64; null where a model has no maps."
_UPLOAD_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            }
        },
    }
}


class Answer(BaseModel):
    """What the model makes of one file; `error` says why it was not read, and then the rest is null."""

    name: str
    label: str | None = None
    text: str | None = None
    probabilities: dict[str, float] | None = None
    threshold: float | None = None
    novelty: float | None = None
    unlike: bool | None = None
    image: str | None = None
    map: str | None = None
    error: str | None = None


class Answers(BaseModel):
    """What the model makes of the files, in their order."""

    predictions: list[Answer]
    note: str = NOTE


class Refusal(BaseModel):
    """Why a request was not answered."""

    error: str


class _MemoryParser(MultiPartParser):
    """Keeps files in memory; Starlette's own writes those over 1 MB to disk."""

    spool_max_size = limits.MAX_REQUEST_BYTES + 1


class Service:
    """A model that answers many clients at a time.

    Files are decoded by a few threads; one thread runs the networks, and one draws explanations.

    Args:
        bundle: the model.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.predictor = Predictor(bundle)
        self.explains = can_explain(bundle, self.predictor)
        self.bytes_in_flight = Budget(limits.MAX_BYTES_IN_FLIGHT)
        self.waiting = Budget(limits.MAX_WAITING)
        self._decoders = ThreadPoolExecutor(_N_DECODERS)
        self._network = ThreadPoolExecutor(1)
        self._drawing = ThreadPoolExecutor(1)
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self.images_total = prometheus_client.Counter(
            "pneumo_images", "Images by what came of them.", ["outcome"], registry=self.registry
        )
        self.unlike_total = prometheus_client.Counter(
            "pneumo_unlike_images", "Images unlike those of training.", registry=self.registry
        )
        self.requests_total = prometheus_client.Counter(
            "pneumo_requests", "Requests for predictions by status.", ["status"], registry=self.registry
        )
        self.seconds = prometheus_client.Histogram(
            "pneumo_request_seconds", "From the first byte to the answer.", registry=self.registry
        )
        waiting = prometheus_client.Gauge(
            "pneumo_waiting_requests", "Requests that wait for the network.", registry=self.registry
        )
        waiting.set_function(lambda: self.waiting.used)
        if self.explains:
            # Keras takes seconds to import; the first answers do not wait for it.
            self._explainer = self._drawing.submit(Explainer, bundle, self.predictor)

    async def answer(self, files: list[tuple[str, bytes]], image: bool, attention: bool) -> list[Answer]:
        """Predict the files of a request.

        Args:
            files: name and content of each.
            image: add what the network saw.
            attention: add where it found what speaks for its class, if the model can say.

        Raises:
            RefusedError: too many requests wait.
        """
        with Share(self.waiting) as waiting:
            waiting.grow_to(1)
            opened = [await self._run(self._decoders, self._open, content) for _, content in files]
            images = [each for each in opened if not isinstance(each, str)]
            judged: list[Verdict] = []
            if images:
                judged = await self._run(self._network, self.predictor.judge, np.stack(images))
            verdicts = iter(judged)
            answers = []
            for (name, _), seen in zip(files, opened, strict=True):
                name = name[:_N_NAME_CHARACTERS]
                if isinstance(seen, str):
                    self.images_total.labels("unreadable").inc()
                    answers.append(Answer(name=name, error=seen))
                    continue
                answer = describe(name, next(verdicts))
                self.images_total.labels(str(answer.label)).inc()
                self.unlike_total.inc(bool(answer.unlike))
                if image:
                    answer.image = encode_png(seen)
                if attention and self.explains:
                    answer.map = await self._run(self._drawing, self._draw, seen, str(answer.label))
                answers.append(answer)
            return answers

    def _open(self, content: bytes) -> Image | str:
        try:
            return self.predictor.preprocess(content, limits.MAX_PIXELS)
        except (UnreadableImageError, PneumoError) as error:
            return str(error)

    def _draw(self, image: Image, label: str) -> str:
        return encode_png(colour_map(self._explainer.result().draw_map(image, label)))

    @staticmethod
    async def _run(pool: ThreadPoolExecutor, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def build_app(bundle: Bundle, hosts: list[str]) -> FastAPI:
    """Build the application.

    Args:
        bundle: the model.
        hosts: names that clients may call the server by; `*` for any. It keeps other web pages from reaching
            a server on this machine under a name of theirs.
    """
    service = Service(bundle)
    app = FastAPIOffline(
        DOCS_URL,
        None,
        title="pneumo",
        version=str(bundle.card.format_version),
        description=f"Predictions for chest X-rays. {NOTE}",
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(Guard, docs_url=DOCS_URL)
    _add_errors(app, service)
    _add_page(app)
    _add_examples(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the server answers."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return counters in Prometheus's text form."""
        text = prometheus_client.generate_latest(service.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Say what the model is, how good it was on its test set, and what it takes."""
        return describe_model(bundle.card, service.explains)

    @app.post(
        "/v1/predict",
        openapi_extra=_UPLOAD_SCHEMA,
        responses={status: {"model": Refusal} for status in (400, 408, 413, 415, 503)},
    )
    async def predict(
        request: Request,
        image: Annotated[bool, Query(description=_IMAGE_TEXT)] = False,
        attention: Annotated[bool, Query(alias="map", description=_MAP_TEXT)] = False,
    ) -> Answers:
        """Predict the images of the form field `files`, in their order."""
        with service.seconds.time(), Share(service.bytes_in_flight) as held:
            try:
                files = await read_files(request, held)
            except RefusedError as error:
                if error.status != 408:
                    await drain(request)
                raise
            answers = await service.answer(files, image, attention)
        service.requests_total.labels("200").inc()
        return Answers(predictions=answers)

    return app


async def read_files(request: Request, held: Share) -> list[tuple[str, bytes]]:
    """Read the files of a form into memory.

    Args:
        request: its body is read.
        held: of the bytes of all requests; it grows to those of this one.

    Returns:
        Name and content of each file.

    Raises:
        RefusedError: the request is too large, too slow, no form, or holds no file or too many.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RefusedError(415, "Expected a form (multipart/form-data) with the field `files`.")
    length = request.headers.get("content-length", "")
    stated = int(length) if length.isdigit() else 0
    if stated > limits.MAX_REQUEST_BYTES:
        raise RefusedError(413, _TOO_LARGE)
    # All of it at once: many forms that are half there would fill the budget without an end.
    held.grow_to(stated)
    stream = _limit(request.stream(), held)
    try:
        async with asyncio.timeout(limits.BODY_TIMEOUT_S):
            parser = _MemoryParser(
                request.headers, stream, max_files=limits.MAX_FILES, max_fields=limits.MAX_FILES
            )
            form = await parser.parse()
    except TimeoutError:
        raise RefusedError(408, f"Expected the whole form within {limits.BODY_TIMEOUT_S:.0f} s.") from None
    except ClientDisconnect:
        raise RefusedError(400, "The form was cut short.") from None
    except MultiPartException as error:
        raise RefusedError(400, error.message) from None
    files = []
    for value in form.getlist("files"):
        if isinstance(value, UploadFile):
            files.append((value.filename or "", await value.read()))
            await value.close()
    if not files:
        raise RefusedError(400, "Expected files in the field `files`. Received: none.")
    return files


async def drain(request: Request) -> None:
    """Take what is left of a form, up to the size of one, and drop it.

    A client that is still sending when its connection is closed does not see the answer.
    """
    n_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limits.DRAIN_TIMEOUT_S):
            while n_bytes < limits.MAX_REQUEST_BYTES:
                message = await request.receive()
                n_bytes += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


_TOO_LARGE = f"Expected up to {limits.MAX_REQUEST_BYTES / 1e6:.0f} MB a request."


async def _limit(stream: AsyncIterator[bytes], held: Share) -> AsyncGenerator[bytes, None]:
    n_bytes = 0
    async for chunk in stream:
        n_bytes += len(chunk)
        if n_bytes > limits.MAX_REQUEST_BYTES:
            raise RefusedError(413, _TOO_LARGE)
        held.grow_to(n_bytes)
        yield chunk


def describe(name: str, verdict: Verdict) -> Answer:
    """Put a verdict in words."""
    text = f"{verdict.label}: the most probable of {len(verdict.probabilities)} classes."
    if verdict.threshold is not None:
        positive, probability = list(verdict.probabilities.items())[1]
        side = "at or above" if verdict.label == positive else "below"
        text = (
            f"{verdict.label}: the probability of {positive} is {probability:.3f}, {side} the threshold of "
            f"{verdict.threshold:.3f}."
        )
    return Answer(
        name=name,
        label=verdict.label,
        text=text,
        probabilities=verdict.probabilities,
        threshold=verdict.threshold,
        novelty=verdict.novelty,
        unlike=verdict.is_unlike_training,
    )


def describe_model(card: Card, explains: bool) -> dict[str, Any]:
    """Return what the page says of the model."""
    return {
        "classes": card.classes,
        "threshold": card.rule.calibrated_threshold,
        "trained_on": card.trained_on,
        "runs": card.runs,
        "n_test": card.n_test,
        "metrics": {name: vars(metric) for name, metric in card.metrics.items()},
        "size_px": card.size_px,
        "explains": explains,
        "max_files": limits.MAX_FILES,
        "max_request_bytes": limits.MAX_REQUEST_BYTES,
        "max_pixels": limits.MAX_PIXELS,
        "note": NOTE,
    }


def encode_png(pixels: npt.NDArray[np.uint8]) -> str:
    """Return an image as PNG in base64."""
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def draw_examples() -> dict[str, bytes]:
    """Draw images to try a model with: name -> PNG file; the same ones at each call."""
    examples = {}
    for number, (name, subtype) in enumerate(
        (("normal", None), ("bacterial", Subtype.BACTERIAL), ("viral", Subtype.VIRAL))
    ):
        generator = np.random.default_rng(number)
        thorax = phantom.draw_thorax(generator)
        attenuation = phantom.add_pneumonia(thorax, subtype, generator) if subtype else thorax.attenuation
        examples[f"drawing_{name}"] = phantom.take_radiograph(attenuation, generator)
    examples["noise"] = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    return {name: base64.b64decode(encode_png(pixels)) for name, pixels in examples.items()}


def _add_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(RefusedError)
    async def refuse(_: Request, error: RefusedError) -> JSONResponse:
        service.requests_total.labels(str(error.status)).inc()
        # What is left of the body is not read, so the connection cannot be used again.
        headers = {"Connection": "close"} | ({"Retry-After": "1"} if error.status == 503 else {})
        return JSONResponse({"error": error.reason}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def fail(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _add_page(app: FastAPI) -> None:
    folder = importlib.resources.files("pneumo.prediction").joinpath("page")
    for path, (name, kind) in _PAGE_FILES.items():
        _add_file(app, path, folder.joinpath(name).read_bytes(), kind)


def _add_examples(app: FastAPI) -> None:
    examples = draw_examples()

    @app.get("/v1/examples")
    async def list_examples() -> list[str]:
        """List images to try the model with, at /v1/examples/<name>.png; all are drawn by a program."""
        return list(examples)

    for name, content in examples.items():
        _add_file(app, f"/v1/examples/{name}.png", content, "image/png")


def _add_file(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    @app.get(path, include_in_schema=False)
    async def give() -> Response:
        return Response(content, media_type=kind)
