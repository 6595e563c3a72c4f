"""A real `bentoml serve` on a free loopback port, stopped by its process id."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 60.0
"""Two cold imports of BentoML and one of XGBoost, on a busy machine."""


@dataclass(frozen=True)
class Answered:
    """An answer of the server."""

    status: int
    headers: Message
    text: str

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answered:
        """GET, or POST where there is a body (bytes as they are, anything else as JSON)."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Answered(answer.status, answer.headers, answer.read().decode())
        except urllib.error.HTTPError as refused:
            with refused:
                return Answered(refused.code, refused.headers, refused.read().decode())

    def wait_until_ready(self) -> None:
        """Wait until the model workers have scored the golden rows."""
        until = time.monotonic() + START_SECONDS
        while (ready := self.ask("/readyz")).status != 200:
            assert time.monotonic() < until, ready.text
            time.sleep(0.1)


@contextmanager
def serving(target: str, *, folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """`bentoml serve target`, run in `folder` with `environment` and nothing else of the platform's settings."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLPLATFORM_", "BENTOML_"))}
    log = folder / f"serve-{port}.log"
    command = [sys.executable, "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**own, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}")
    try:
        _wait_until_alive(server, process, log)
        yield server
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()


def _wait_until_alive(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            if server.ask("/livez").status == 200:
                return
        except OSError:
            # Waits for the process, which ends early only when it fails: no blind sleep.
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError(f"the server did not start:\n{log.read_text()[-4000:]}")
