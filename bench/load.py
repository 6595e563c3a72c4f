"""Load on one HTTP address: a body posted over and over on some connections, and how long the answers took.

`wrk` is used where it is installed: it costs the least of the client's core. Otherwise a client of our own does it, on
raw sockets, several times slower; then the client is what limits the fastest servers, and the report says so.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

REPORT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("BODY", "rb")
wrk.body = file:read("*a")
file:close()
function done(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "seconds": %.6f, "errors": %d, "p50": %.9f, "p99": %.9f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of load met."""

    requests: int
    seconds: float
    errors: int
    """Answers other than 2xx, broken connections, timeouts."""

    p50: float
    """Median time to the answer, seconds."""

    p99: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def generator() -> str:
    """Name of what makes the load."""
    return "wrk" if shutil.which("wrk") else "bench/load.py"


def pinned(command: list[str], core: int | None) -> list[str]:
    """The command on one core, where the machine can do that."""
    return command if core is None or not shutil.which("taskset") else ["taskset", "-c", str(core), *command]


def load(url: str, body: bytes, *, connections: int, seconds: float, core: int | None = None) -> Load:
    """Post `body` to `url` for so long, from another process.

    Parameters
    ----------
    core : number of the core that the client runs on; None: wherever
    """
    with tempfile.TemporaryDirectory() as folder:
        body_file, script = Path(folder, "body"), Path(folder, "report.lua")
        body_file.write_bytes(body)
        if generator() == "wrk":
            script.write_text(REPORT.replace("BODY", str(body_file)))
            command = ["wrk", "--threads", "1", "--connections", str(connections), "--timeout", "30s"]
            # wrk knows whole seconds only.
            command += ["--duration", f"{max(1, round(seconds))}s", "--script", str(script), url]
        else:
            command = [sys.executable, "-m", "bench.load", url, "--body", str(body_file)]
            command += ["--connections", str(connections), "--seconds", str(seconds)]
        done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    try:
        return Load(**json.loads(done.stderr.strip().splitlines()[-1]))
    except (IndexError, TypeError, ValueError):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}") from None


class _Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, request: bytes, times: list[float], wrong: list[int], until: float) -> None:
        self._request = request
        self._times = times
        self._wrong = wrong
        self._until = until
        self._held = b""
        self._asked = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, separator, rest = self._held.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        if len(rest) < int(length.partition(b":")[2]):
            return
        now = time.perf_counter()
        self._times.append(now - self._asked)
        self._wrong[0] += head.split(b" ", 2)[1][:1] != b"2"
        self._held = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wrong[0] += exc is not None or time.perf_counter() < self._until
        if not self.ended.done():
            self.ended.set_result(None)


async def _run(url: str, body: bytes, connections: int, seconds: float) -> Load:
    address = urlsplit(url)
    request = (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    times: list[float] = []
    wrong = [0]
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: _Client(request, times, wrong, began + seconds), address.hostname or "127.0.0.1", address.port or 80
        )
        clients.append(client.ended)
    await asyncio.gather(*clients)
    took = time.perf_counter() - began
    times.sort()
    return Load(len(times), took, wrong[0], times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))])


def main() -> None:
    """Run as `python -m bench.load`: the client of our own."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("--body", type=Path, required=True)
    arguments.add_argument("--connections", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=5.0)
    given = arguments.parse_args()
    met = asyncio.run(_run(given.url, given.body.read_bytes(), given.connections, given.seconds))
    sys.stderr.write(json.dumps(asdict(met)) + "\n")


if __name__ == "__main__":
    main()
