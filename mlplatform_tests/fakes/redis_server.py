"""A Redis server of its own for a test: on a free port of this machine, started, paused, killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from mlplatform_tests.fakes.waiting import until

SECONDS = 20.0


class RedisServer:
    """A server that keeps nothing on disk unless it is told to.

    Parameters
    ----------
    folder : for its log and its dump
    options : of its command line
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = _free_port()
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """As `MLPLATFORM_ONLINE_STORE` takes it."""
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> Redis:
        """For the test itself, patient."""
        return Redis(port=self.port, socket_timeout=SECONDS)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with (self.folder / "redis.log").open("ab") as log:
            self._child = subprocess.Popen(
                [*command, "--save", "", "--appendonly", "no", *self._options], stdout=log, stderr=log
            )
        until(self._answers, seconds=SECONDS, what="an answer of redis-server")

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections, and answers nothing."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._child.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except RedisError:
            return False


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server that is there, and gone afterwards. Where Redis is not installed the test is skipped, but in CI."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed here, and CI must test with it")
        pytest.skip("redis-server is not installed: the online store on Redis is not tested")
    server = RedisServer(folder, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
