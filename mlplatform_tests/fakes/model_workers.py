"""Model workers in processes of their own, to be killed, stopped and started again."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from mlplatform_tests.fakes.waiting import until

ROOT = Path(__file__).resolve().parents[2]


class ModelWorkerProcesses:
    """So many `python -m serving.model_worker` of one bundle, each on its own socket."""

    def __init__(self, bundle: Path, run: Path, count: int) -> None:
        self.bundle = bundle
        self.sockets = [run / f"worker-{number}" for number in range(count)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count

    def start(self) -> None:
        """Start those that are not there, and wait until all are ready."""
        self.spawn()
        until(self._ready, seconds=60, what="model workers are ready")

    def spawn(self) -> None:
        """Start those that are not there. From the main thread: a worker dies with the thread that started it."""
        assert threading.current_thread() is threading.main_thread()
        for number, path in enumerate(self.sockets):
            process = self._processes[number]
            if process is None or process.poll() is not None:
                path.unlink(missing_ok=True)
                self._processes[number] = subprocess.Popen(
                    [sys.executable, "-m", "serving.model_worker", "--bundle", self.bundle, "--socket", path], cwd=ROOT
                )

    def _ready(self) -> bool:
        for number in range(len(self.sockets)):
            ended = self.process(number).poll()
            assert ended is None, f"a model worker ended with {ended} before it was ready"
        return all(path.exists() for path in self.sockets)

    def signal(self, number: int, told: signal.Signals) -> None:
        """Send a signal to one of them."""
        os.kill(self.process(number).pid, told)

    def process(self, number: int) -> subprocess.Popen[bytes]:
        """One of them."""
        process = self._processes[number]
        assert process is not None
        return process

    def stop(self) -> None:
        """Kill all."""
        for process in self._processes:
            if process is not None:
                process.kill()
                process.wait()
