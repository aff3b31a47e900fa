"""Load a running server with many clients at a time, and report how long answers take and what memory does.

pneumo serve --model model.pneumo --port 8000
python benchmarks/serve.py 8000 data/raw/kaggle/test --pid $(pgrep -f "pneumo serve") --output serve.json
"""

import argparse
import http.client
import itertools
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pneumo.base.artifacts import write_json
from pneumo.data.decoding import IMAGE_SUFFIXES

BOUNDARY = "pneumo-benchmark"
N_FILES = 64  # that the clients send in turn
QUANTILES = (0.5, 0.95, 0.99)
MEMORY_PAUSE_S = 1.0


def main() -> None:
    """Measure, print and write as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int, help="of the server, on 127.0.0.1")
    parser.add_argument("folder", type=Path, help="image files, at any depth")
    parser.add_argument("--clients", type=int, default=32, help="at a time (default: 32)")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--pid", type=int, help="of the server, to read its memory")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    paths = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        parser.error(f"Expected image files in {args.folder}. Received: none")
    bodies = [encode(path.read_bytes()) for path in paths[:N_FILES]]
    result = load(args.port, bodies, args.clients, args.seconds, args.pid)
    for name, value in result.items():
        print(f"{name}: {value}")
    if args.output:
        write_json(args.output, result)


def encode(content: bytes) -> bytes:
    """Return a form with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def load(
    port: int, bodies: list[bytes], n_clients: int, seconds: float, pid: int | None
) -> dict[str, object]:
    """Let clients ask one request after another until the time is over.

    Returns:
        `n_answers`, `n_errors` (any status but 200, and lost connections), answers a second, quantiles of the
        seconds an answer takes, and memory at the start, at the end and at most.
    """
    end = time.monotonic() + seconds
    memory_mb: list[float] = []
    is_over = threading.Event()

    def watch_memory() -> None:
        while pid is not None and not is_over.wait(MEMORY_PAUSE_S):
            memory_mb.append(read_memory_mb(pid))

    def ask(number: int) -> tuple[list[float], int]:
        taken, n_errors = [], 0
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for body in itertools.cycle(bodies[number % len(bodies) :] + bodies[: number % len(bodies)]):
            if time.monotonic() > end:
                break
            start = time.perf_counter()
            try:
                connection.request("POST", "/v1/predict", body, headers)
                response = connection.getresponse()
                response.read()
                n_errors += response.status != 200
            except OSError:
                n_errors += 1
                connection.close()
            taken.append(time.perf_counter() - start)
        return taken, n_errors

    watcher = threading.Thread(target=watch_memory)
    watcher.start()
    with ThreadPoolExecutor(n_clients) as pool:
        results = list(pool.map(ask, range(n_clients)))
    is_over.set()
    watcher.join()
    all_taken = np.concatenate([taken for taken, _ in results])
    quantiles = {f"p{100 * q:.0f}_s": round(float(np.quantile(all_taken, q)), 4) for q in QUANTILES}
    result: dict[str, object] = {"n_cpus": os.cpu_count(), "n_clients": n_clients, "seconds": seconds}
    result |= {"n_answers": len(all_taken), "n_errors": sum(n for _, n in results)}
    result |= {"answers_per_s": round(len(all_taken) / seconds, 1), **quantiles}
    if memory_mb:
        quarter = max(1, len(memory_mb) // 4)
        result |= {
            "memory_mb_first_quarter": round(float(np.mean(memory_mb[:quarter])), 1),
            "memory_mb_last_quarter": round(float(np.mean(memory_mb[-quarter:])), 1),
            "memory_mb_most": max(memory_mb),
        }
    return result


def read_memory_mb(pid: int) -> float:
    """Return the resident memory of a process; Linux only."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else float("nan")


if __name__ == "__main__":
    main()
