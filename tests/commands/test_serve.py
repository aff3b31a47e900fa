"""The server: its answers, and what it makes of hostile ones; nothing is written, nobody is called."""

import base64
import io
import json
import socket
import struct
import sys
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from hostile import bad_files, draw_image, encode, jpeg, png_chunk
from pneumo.cli import main
from pneumo.commands import serve
from pneumo.prediction.bundle import Bundle
from pneumo.prediction.predictor import Predictor
from serving import Server, encode_form

# Limits are small here, so that running into them takes no time.
LIMITS = {
    "MAX_CONNECTIONS": 300,
    "MAX_WAITING": 40,
    "MAX_REQUEST_BYTES": 8_000_000,
    "MAX_BYTES_IN_FLIGHT": 40_000_000,
    "HEADER_TIMEOUT_S": 1.0,
    "BODY_TIMEOUT_S": 2.0,
    "REQUEST_TIMEOUT_S": 20.0,
}
MEMORY_LIMIT_MB = 700
GOOD = jpeg(1)


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """Serve a network in ONNX; what it writes or whom it calls from its first answer on is an error."""
    server = Server.start(exported / "onnx.pneumo", tmp_path_factory.mktemp("server"), **LIMITS)
    server.predict(GOOD)
    server.clear_note()
    yield server
    found = server.read_note()
    memory_mb = server.read_memory_mb()
    server.stop()
    assert found == ""
    assert list((server.note.parent / "working").iterdir()) == []
    assert memory_mb < MEMORY_LIMIT_MB


# Answers


def test_answers_are_those_of_the_command_line(server, exported, tmp_path):
    contents = [
        GOOD,
        encode(draw_image(2), "PNG"),
        encode(draw_image(3).astype(np.uint16) * 257, "TIFF"),
        b"no image",
    ]
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    table = tmp_path / "out.json"
    assert (
        main(["predict", *map(str, paths), "--model", str(exported / "model.pneumo"), "--json", str(table)])
        == 1
    )
    for answer, row in zip(server.predict(*contents), json.loads(table.read_text()), strict=True):
        assert answer["error"] == row["error"]
        assert answer["label"] == row["label"]
        assert answer["unlike"] == row["unlike"]
        if row["error"] is None:
            assert answer["probabilities"]["pneumonia"] == pytest.approx(row["p_pneumonia"], abs=1e-4)
            assert answer["threshold"] == pytest.approx(row["threshold"])
            assert answer["novelty"] == pytest.approx(row["novelty"], rel=1e-3)
            side = "at or above" if row["label"] == "pneumonia" else "below"
            assert f"{side} the threshold of {row['threshold']:.3f}" in answer["text"]


def test_pictures_come_when_asked_for(server, exported):
    (answer,) = server.predict(GOOD)
    assert (answer["image"], answer["map"]) == (None, None)
    (answer,) = server.predict(GOOD, query="?image=true&map=true")
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image"]))))
    expected = Predictor(Bundle(exported / "onnx.pneumo")).preprocess(GOOD)
    np.testing.assert_array_equal(seen, expected)
    assert answer["map"] is None  # ONNX has no gradients


def test_the_model_is_described(server):
    status, body = server.get("/v1/model")
    description = json.loads(body)
    assert status == 200
    assert description["classes"] == ["normal", "pneumonia"]
    assert description["trained_on"] == "Synthetic chest phantoms"
    assert description["explains"] is False
    assert set(description["metrics"]["roc_auc"]) == {"value", "low", "high"}
    assert "Not a medical device" in description["note"]


def test_the_interface_is_described_without_anything_from_elsewhere(server):
    description = json.loads(server.get("/openapi.json")[1])
    assert set(description["paths"]) == {"/health", "/metrics", "/v1/model", "/v1/examples", "/v1/predict"}
    predict = description["paths"]["/v1/predict"]["post"]
    assert "multipart/form-data" in predict["requestBody"]["content"]
    assert {"200", "400", "408", "413", "415", "503"} <= set(predict["responses"])
    for path in ("/", "/page.js", "/page.css", "/docs"):
        status, body = server.get(path)
        assert status == 200
        assert b"http://" not in body.replace(b"http://www.w3.org", b"")
        assert b"https://" not in body


def test_examples_can_be_predicted(server):
    names = json.loads(server.get("/v1/examples")[1])
    assert len(names) == 4
    answers = server.predict(*(server.get(f"/v1/examples/{name}.png")[1] for name in names))
    assert all(answer["error"] is None for answer in answers)


def test_counters_are_prometheus_s(server):
    from prometheus_client.parser import text_string_to_metric_families

    def count():
        families = text_string_to_metric_families(server.get("/metrics")[1].decode())
        return {
            (each.name, *each.labels.values()): each.value for family in families for each in family.samples
        }

    before = count()
    server.predict(GOOD, b"no image")
    server.request("POST", "/v1/predict", b"", Content_Type="text/plain")
    after = count()
    label = server.predict(GOOD)[0]["label"]

    def grown(*key):
        return after[key] - before.get(key, 0)

    assert grown("pneumo_images_total", label) == 1
    assert grown("pneumo_images_total", "unreadable") == 1
    assert grown("pneumo_requests_total", "200") == 1
    assert grown("pneumo_requests_total", "415") == 1
    assert grown("pneumo_request_seconds_count") == 2
    assert after[("pneumo_waiting_requests",)] == 0


@pytest.mark.parametrize("path", ["/", "/v1/model", "/health", "/nothing", "/docs"])
def test_browsers_are_told_to_load_nothing_from_elsewhere(server, path):
    _, headers, _ = server.request("GET", path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert ("'unsafe-inline'" in policy) == (path == "/docs")
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


# Hostile images: each is answered with what is wrong with it, and the good one beside it with its verdict.


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.png", bytes(50_000_000))
    return buffer.getvalue()


def real_png_bomb():
    """Return a valid PNG of 40 megapixels in 40 KB."""
    header = struct.pack(">IIBBBBB", 8000, 5000, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(8001 * 5000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )


def text_chunk_bomb():
    """Return a PNG whose text chunk unpacks to 50 MB."""
    png = encode(draw_image(5), "PNG")
    chunk = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(50_000_000), 9))
    return png[:33] + chunk + png[33:]


def many_scans():
    """Return a progressive JPEG that repeats its last scan 5,000 times."""
    content = encode(np.zeros((2000, 2000), np.uint8), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 5000 + b"\xff\xd9"


def dicom(body=b"", syntax=b"1.2.840.10008.1.2.1"):
    syntax += b"\0" * (len(syntax) % 2)
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element))
    return bytes(128) + b"DICM" + length + element + body


def tiff_tag(number):
    """Return a tag of one large number."""
    return struct.pack("<HHII", number, 4, 1, 2**31 - 1)


HOSTILE_IMAGES = {name.rpartition("/")[2]: content for name, content in bad_files().items()} | {
    "zip_bomb.png": zip_bomb(),
    "40_megapixels.png": real_png_bomb(),
    "text_chunk_bomb.png": text_chunk_bomb(),
    "many_scans.jpeg": many_scans(),
    "broken.dcm": bytes(128) + b"DICM" + b"\xff" * 300,
    "without_pixels.dcm": dicom(),
    "video.dcm": dicom(bytes(2000), b"1.2.840.10008.1.2.4.102"),
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "document.pdf": b"%PDF-1.7\n1 0 obj\n<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>",
    "program.exe": b"MZ" + bytes(500),
    "pickle.png": b"cos\nsystem\n(S'touch evil'\ntR.",
    "icon.ico": encode(draw_image(6), "ICO"),
    "huge_tiff.tiff": b"II*\0\x08\0\0\0\x02\0" + tiff_tag(0x100) + tiff_tag(0x101) + bytes(4),
    "tiff_loop.tiff": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
}
IGNORED_HERE = ("person77_virus_900.jpeg", "covid_1.jpeg", "no_class_folder.jpeg")  # bad by their place alone


@pytest.mark.parametrize("name", [name for name in HOSTILE_IMAGES if name not in IGNORED_HERE])
def test_hostile_images(server, name):
    start = time.perf_counter()
    bad, good = server.predict(HOSTILE_IMAGES[name], GOOD)
    assert time.perf_counter() - start < 10
    assert bad["label"] is None
    assert 0 < len(bad["error"]) < 200
    assert good["error"] is None


NAMES = {
    "upwards": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "windows": "C:\\Windows\\system32",
    "null": "a\0b.png",
    "long": "x" * 100_000,
    "html": "<img src=x onerror=alert(1)>.png",
    "unicode": "R\u00f6ntgen \u80f8\u90e8 \U0001fac1.png",
    "empty": "",
    "right to left": "\u202egnp.exe",
    "not utf-8": "a\udcff.png",
    "formula": "=cmd|' /C calc'!A0.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_only_repeated(server, name):
    body, kind = encode_form([("files", NAMES[name], GOOD)])
    status, _, answer = server.request("POST", "/v1/predict", body, Content_Type=kind)
    if name == "long":  # a header of the form may not be that long
        assert status == 400
        return
    assert status == 200
    (prediction,) = json.loads(answer)["predictions"]
    assert prediction["error"] is None
    if name != "not utf-8":
        assert NAMES[name].endswith(prediction["name"])
        assert bool(prediction["name"]) == bool(NAMES[name])
    assert len(prediction["name"]) <= 255


# Hostile requests: what is sent -> status of the answer, and a part of it.

FORM, KIND = encode_form([("files", "a.png", GOOD)])


def post(body=FORM, *, kind=KIND, headers="", length=None, path="/v1/predict", method="POST"):
    length = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    if kind is not None:
        head += f"Content-Type: {kind}\r\n"
    if length != "none":
        head += f"Content-Length: {length}\r\n"
    return (head + headers + "\r\n").encode() + body


def get(path, headers="Host: 127.0.0.1\r\n", method="GET", version="HTTP/1.1"):
    return f"{method} {path} {version}\r\n{headers}Connection: close\r\n\r\n".encode()


def form(*parts, **options):
    body, kind = encode_form(list(parts))
    return post(body, kind=kind, **options)


def chunked(n_bytes, size=1_000_000):
    body, kind = encode_form([("files", "a.png", bytes(n_bytes))])
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    packed = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in [*parts, b""])
    return post(packed, kind=kind, length="none", headers="Transfer-Encoding: chunked\r\n")


HOSTILE_REQUESTS = {
    "no body": (post(b""), 400, "no file|none|form|multipart|boundary"),
    "json in place of a form": (post(b'{"files": []}', kind="application/json"), 415, "Expected a form"),
    "malformed json": (post(b'{"files": [', kind="application/json"), 415, "Expected a form"),
    "text": (post(b"files=a", kind="text/plain"), 415, "Expected a form"),
    "urlencoded": (post(b"files=a", kind="application/x-www-form-urlencoded"), 415, "Expected a form"),
    "no content type": (post(kind=None), 415, "Expected a form"),
    "bytes as content type": (post(kind="\x01\x02"), (400, 415), ""),
    "an image as it is": (post(GOOD, kind="image/jpeg"), 415, "Expected a form"),
    "no boundary": (post(kind="multipart/form-data"), 400, "boundary"),
    "another boundary": (post(kind="multipart/form-data; boundary=other"), 400, ""),
    "a boundary of 10,000 characters": (post(kind="multipart/form-data; boundary=" + "b" * 10_000), 400, ""),
    "a form without an end": (post(FORM[:-20]), 400, ""),
    "a form cut within an image": (post(FORM[:300]), 400, ""),
    "bytes in place of a form": (post(bytes(range(256)) * 40), 400, ""),
    "another field": (form(("images", "a.png", GOOD)), 400, "Received: none"),
    "a text in place of a file": (form(("files", None, b"text")), 400, "Received: none"),
    "17 files": (form(*[("files", "a.png", b"x")] * 17), 400, "Too many files"),
    "1,000 fields": (form(*[(f"f{i}", None, b"x") for i in range(1000)]), 400, "Too many fields"),
    "a field of 2 MB": (form(("text", None, bytes(2_000_000))), 400, "exceeded maximum size"),
    "a field without a name": (post(FORM.replace(b'name="files"; ', b"")), 400, "name"),
    "a form within the form": (form(("files", "a", FORM)), 200, "not a readable"),
    "packed with gzip": (post(zlib.compress(FORM), headers="Content-Encoding: gzip\r\n"), 400, ""),
    "an unknown value of an option": (post(path="/v1/predict?image=perhaps"), 422, "bool"),
    "9 MB": (form(("files", "a.png", bytes(9_000_000))), 413, "Expected up to 8 MB"),
    "9 MB of unknown length": (chunked(9_000_000), 413, "Expected up to 8 MB"),
    "a terabyte, as it says": (post(length=10**12), 413, "Expected up to 8 MB"),
    "a length below zero": (post(length=-5), 400, ""),
    "a length in words": (post(length="many"), 400, ""),
    "two lengths": (post(headers="Content-Length: 3\r\n"), 400, ""),
    "a length and chunks": (post(headers="Transfer-Encoding: chunked\r\n"), 400, ""),
    "less than it says": (post(length=len(FORM) + 100), 408, "Expected the whole form within 2 s"),
    "more than it says": (post(length=len(FORM) - 100), 400, ""),
    "no http": (b"\x00\x01\x02 nonsense\r\n\r\n", 400, "Invalid HTTP request"),
    "a tls greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n", 400, ""),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, ""),
    "http/0.9": (b"GET /\r\n\r\n", 400, ""),
    "a header of 200 kB": (get("/", "Host: 127.0.0.1\r\nX: " + "x" * 200_000 + "\r\n"), 400, ""),
    "5,000 headers": (get("/", "Host: 127.0.0.1\r\n" + "X: x\r\n" * 5000), (200, 400), ""),
    "a path of 200 kB": (get("/" + "a" * 200_000), 400, ""),
    "a path upwards": (get("/../../../../etc/passwd"), 404, ""),
    "a path upwards, encoded": (get("/%2e%2e/%2e%2e/etc/passwd"), 404, ""),
    "a path upwards from the files of the description": (
        get("/static-offline-docs/..%2f..%2f..%2f..%2fetc/passwd"),
        404,
        "",
    ),
    "a path upwards from the examples": (get("/v1/examples/../../../etc/passwd"), 404, ""),
    "a path with a null": (get("/%00"), 404, ""),
    "another page of this server": (get("/admin"), 404, ""),
    "another name of this machine": (get("/health", "Host: attacker.example\r\n"), 400, "Invalid host"),
    "no name": (get("/health", ""), 400, ""),
    "get in place of post": (get("/v1/predict"), 405, ""),
    "delete": (get("/v1/predict", method="DELETE"), 405, ""),
    "connect": (get("attacker.example:443", method="CONNECT"), (400, 404, 405), ""),
    "trace": (get("/", method="TRACE"), 405, ""),
    "an unknown method": (get("/", method="BREW"), 405, ""),
    "a web socket": (
        get("/v1/predict", "Host: 127.0.0.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"),
        405,
        "",
    ),
    "a range": (get("/page.js", "Host: 127.0.0.1\r\nRange: bytes=-1,0-99999999\r\n"), 200, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_REQUESTS)
def test_hostile_requests(server, name):
    raw, expected, part = HOSTILE_REQUESTS[name]
    answer = server.send(raw, cut=name == "http/0.9")
    status = int(answer.split(b" ")[1])
    assert status == expected or (isinstance(expected, tuple) and status in expected), answer[:500]
    body = answer.partition(b"\r\n\r\n")[2].decode()
    assert any(each in body for each in part.split("|")), body
    assert "Traceback" not in body
    assert server.get("/health")[0] == 200


def test_there_are_enough_kinds_of_hostile_input():
    assert len(HOSTILE_IMAGES) + len(HOSTILE_REQUESTS) + len(NAMES) >= 40 * 2


# Hostile clients


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=15)


def wait_for_end(connection):
    """Return what a server sends until it closes."""
    received = b""
    try:
        while chunk := connection.recv(1 << 16):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_who_asks_for_nothing_is_closed(server):
    with connect(server) as silent, connect(server) as slow:
        slow.sendall(b"GET / HT")
        start = time.perf_counter()
        assert wait_for_end(silent) == b""
        assert wait_for_end(slow) == b""
        assert 0.8 < time.perf_counter() - start < 8


def test_who_sends_a_header_byte_by_byte_is_closed(server):
    with connect(server) as slow:
        start = time.perf_counter()
        try:
            for byte in b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 1000:
                slow.sendall(bytes([byte]))
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.perf_counter() - start < 8


def test_who_sends_a_form_byte_by_byte_is_told_so(server):
    with connect(server) as slow:
        raw = post()
        head = raw.index(b"\r\n\r\n") + 4
        slow.sendall(raw[:head])
        slow.settimeout(0.05)
        start = time.perf_counter()
        answer = b""
        for byte in raw[head:]:
            try:
                slow.sendall(bytes([byte]))
                answer = slow.recv(1000)
                break
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break
        assert time.perf_counter() - start < 10
        assert answer == b"" or b" 408 " in answer


def test_who_goes_away_leaves_nothing_behind(server):
    body, kind = encode_form([("files", "a.png", bytes(4_000_000))])
    raw = post(body, kind=kind)
    for n_bytes in (10, 300, 2_000_000, len(raw)) * 3:
        with connect(server) as connection:
            connection.sendall(raw[:n_bytes])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # All that was held in memory has been given back, or this would be refused in the end.
    for _ in range(12):
        assert server.predict(GOOD)[0]["error"] is None


def test_who_never_reads_the_answer_stops_nobody(server):
    with connect(server) as deaf:
        deaf.sendall(get("/static-offline-docs/swagger-ui-bundle.js").replace(b"close", b"keep-alive") * 40)
        assert server.predict(GOOD)[0]["error"] is None


def test_requests_that_are_sent_at_once_are_answered_in_order(server):
    one, last = get("/health").replace(b"close", b"keep-alive"), get("/v1/model")
    answers = server.send(one * 20 + last)
    assert answers.count(b'{"status":"ok"}') == 20
    assert answers.count(b'"trained_on"') == 1


def test_a_thousand_connections_at_a_time(server):
    connections = []
    try:
        for _ in range(1000):
            connections.append(connect(server))
            connections[-1].sendall(get("/health"))
        answers = [wait_for_end(each) for each in connections]
    finally:
        for each in connections:
            each.close()
    statuses = [int(answer.split(b" ")[1]) for answer in answers if answer]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 200
    assert server.get("/health")[0] == 200


def test_a_thousand_forms_at_a_time(server):
    """Some are told to come again; memory is bounded (see the fixture)."""
    body, kind = encode_form([("files", "a.bmp", encode(draw_image(1, 1000, 1000), "BMP"))])
    raw = post(body, kind=kind)

    def ask(_):
        answer = server.send(raw)
        return int(answer.split(b" ")[1]) if answer else 503

    with ThreadPoolExecutor(250) as pool:
        statuses = list(pool.map(ask, range(1000)))
    assert set(statuses) <= {200, 408, 503}  # 408: this machine was too busy to send it
    assert statuses.count(200) >= 20
    assert server.predict(GOOD)[0]["error"] is None


def test_thirty_two_clients_are_all_answered(server):
    """The short form of benchmarks/serve.py."""
    contents = [jpeg(seed) for seed in range(8)]
    expected = [answer["probabilities"]["pneumonia"] for answer in server.predict(*contents)]
    server.predict(*contents)
    before_mb, end = server.read_memory_mb("VmRSS"), time.monotonic() + 4

    def ask(number):
        n = 0
        while time.monotonic() < end:
            (answer,) = server.predict(contents[number % 8])
            assert answer["probabilities"]["pneumonia"] == pytest.approx(expected[number % 8], abs=1e-6)
            n += 1
        return n

    with ThreadPoolExecutor(32) as pool:
        n_answers = list(pool.map(ask, range(32)))
    assert min(n_answers) >= 1
    assert server.read_memory_mb("VmRSS") - before_mb < 60


# The command


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--host", "203.0.113.7"], "Expected a free address. Received: 203.0.113.7"),
        (["--host", "no such name"], "Expected a free address"),
        (["--port", "99999"], "--port: Expected 0 to 65535. Received: 99999"),
        (["--port", "0", "--model", "gone.pneumo"], "Expected a model that `pneumo export` wrote"),
        (["--port", "0"], "Expected a model, or models/release/model.pneumo"),
    ],
)
def test_what_keeps_a_server_from_starting_is_said(options, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *options]) == 1
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_said(server, exported, capsys):
    assert main(["serve", "--port", str(server.port), "--model", str(exported / "onnx.pneumo")]) == 1
    assert "(Address already in use)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("a.example", False),
    ],
)
def test_addresses_of_this_machine_alone(host, is_local):
    assert serve.is_loopback(host) == is_local


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--port", "0"]) == 1
    assert "`pip install 'pneumo[serve]'`" in capsys.readouterr().err
