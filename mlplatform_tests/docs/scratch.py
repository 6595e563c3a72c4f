"""A copy of the project in which a page's commands are run: nothing of them reaches the checkout or its `var/`."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlplatform.provenance.files import alone
from mlplatform_tests.docs.page import ROOT, Command
from mlplatform_tests.fakes.waiting import until

copied = ("mlplatform", "serving", "Makefile", "README.md", "dagster.yaml", "pyproject.toml", "requirements.lock",
          "workspace.yaml")  # fmt: skip
"""What a page may rely on being there."""

SECONDS = 300.0
"""Time of one command on a machine where other tests run; the longest trains a model."""

prelude = (
    "mlplatform land synthetic --from 2024-01-01 --to 2024-01-24",
    "mlplatform backfill synthetic",
    "mlplatform train synthetic/late_order",
)
"""How most pages begin. One of them runs it, and the others go on from what it left."""

told_ports = (3000, 3001)
"""Those that pages name; others may listen there while a test runs."""


class Scratch:
    """The copy, and the servers left running in it.

    Parameters
    ----------
    folder : an empty folder
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers: list[tuple[Command, subprocess.Popen[bytes], Path]] = []
        self._ports = {told: _free_port() for told in told_ports}
        for name in copied:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        (folder / "mlplatform_tests").mkdir()
        self._make_environment()

    def _make_environment(self) -> None:
        """A virtual environment into which a page may install: what the project needs is seen from it, not in it."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=self.folder, check=True)
        (packages,) = self.folder.glob(".venv/lib/python*/site-packages")
        (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        # The commands run in the project's own environment, which looks here too, editable installs included.
        (self.folder / "sitecustomize.py").write_text(f"import site\n\nsite.addsitedir({str(packages)!r})\n")

    def begin(self, commands: Sequence[Command], kept: Path) -> None:
        """Run the commands of the prelude, or take over what another page's have left, and hold what they said.

        Parameters
        ----------
        commands : as the page writes them
        kept : folder in which all processes of a test run keep it
        """
        with alone(kept.with_suffix(".lock")):
            if not kept.exists():
                told = [self._ended(each) for each in commands]
                shutil.copytree(self.folder / "var", kept / "var")
                (kept / "told.json").write_text(json.dumps(told))
        if not (self.folder / "var").exists():
            shutil.copytree(kept / "var", self.folder / "var")
        for command, (code, output) in zip(commands, json.loads((kept / "told.json").read_text()), strict=True):
            command.hold(code, output)

    def write(self, path: str, text: str) -> None:
        """Write a file of the page."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def run(self, command: Command) -> None:
        """Run a command and hold its exit code and its output against what is shown."""
        if command.background:
            self._start(command)
        elif command.again:
            until(lambda: command.is_told_by(self._ended(command)[1]), seconds=SECONDS, what=command.text)
        else:
            command.hold(*self._ended(command))

    def stop(self) -> None:
        """Stop the servers, each with what it has started, the last one first."""
        for _, process, _ in reversed(self._servers):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _ended(self, command: Command) -> tuple[int, str]:
        with self._started(command, subprocess.PIPE) as process:
            try:
                output, _ = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, self._as_told(output.decode())

    def _start(self, command: Command) -> None:
        log = self.folder / f"server_{len(self._servers)}.log"
        with log.open("wb") as output:
            process = self._started(command, output.fileno())
        self._servers.append((command, process, log))

        def ready() -> bool:
            assert process.poll() is None, f"$ {command.text}\nended with {process.returncode}:\n{log.read_text()}"
            return command.is_begun_by(self._as_told(log.read_text()))

        until(ready, seconds=SECONDS, what=f"$ {command.text} prints {command.shown}")

    def _started(self, command: Command, output: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self._with_free_ports(command.text)],
            cwd=self.folder,
            env=self._environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        """A new user's: nothing of ours is set, and the virtual environment is active."""
        told = {name: value for name, value in os.environ.items() if not name.startswith(("MLPLATFORM_", "DAGSTER_"))}
        path = os.pathsep.join([str(ROOT / ".venv" / "bin"), told["PATH"]])
        # The installed package is the checkout; the copy must come before it.
        return {
            **told,
            "PATH": path,
            "PYTHONPATH": str(self.folder),
            "VIRTUAL_ENV": str(self.folder / ".venv"),
            "COLUMNS": "120",
        }

    def _with_free_ports(self, text: str) -> str:
        return re.sub(r"\b300[01]\b", lambda match: str(self._ports[int(match[0])]), text)

    def _as_told(self, output: str) -> str:
        for told, free in self._ports.items():
            output = output.replace(str(free), str(told))
        return output


@contextmanager
def scratch_project(folder: Path) -> Iterator[Scratch]:
    """A scratch copy whose servers are stopped at the end."""
    folder.mkdir()
    with ExitStack() as stack:
        scratch = Scratch(folder)
        stack.callback(scratch.stop)
        yield scratch


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
