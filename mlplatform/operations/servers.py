"""The servers that people and software talk to: the Bento of a champion, the Dagster UI and its daemon.

Each is a child process that is stopped by its id. `dagster dev` is not used: started without a terminal it ignores
SIGINT and SIGTERM, and killed it leaves the webserver holding the port with old code.
"""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, Unavailable
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bento import bento_home, build_bento
from mlplatform.registry.ledger import Ledger
from mlplatform.settings import child_environment

stop_seconds = 10
"""Time a child gets to stop by itself before it is killed."""


def champion_tag(platform: Platform, domain: Domain, model: ModelSpec) -> str:
    """Tag of the champion's Bento; built if it is not there.

    Raises
    ------
    DataError
        No model was promoted yet.
    """
    name = f"{domain.name}/{model.name}"
    champion = Ledger(platform).champion(name)
    if champion is None:
        raise DataError(f"{name} has no champion. Run `mlplatform train {name}` first")
    return build_bento(platform.bundles / champion, home=platform.home)


def bento_command(tag: str, *, host: str, port: int) -> list[str]:
    """The command that serves a Bento."""
    return [sys.executable, "-m", "bentoml", "serve", tag, "--host", host, "--port", str(port)]


def bento_environment(platform: Platform, *, clock: str | None = None) -> dict[str, str]:
    """What that command must find in its environment."""
    changes = {"BENTOML_HOME": str(bento_home(platform.home)), "MLPLATFORM_HOME": str(platform.home)}
    return child_environment(**changes, **({"MLPLATFORM_CLOCK": clock} if clock else {}))


def serve_champion(platform: Platform, domain: Domain, model: ModelSpec, *, host: str, port: int) -> int:
    """Serve the champion's Bento in the foreground; returns the exit code of the server.

    Raises
    ------
    Unavailable
        The port is taken.
    """
    require_free(host, port)
    command = bento_command(champion_tag(platform, domain, model), host=host, port=port)
    with running([command], bento_environment(platform), log=None) as (child,):
        try:
            return child.wait()
        except KeyboardInterrupt:
            return 0


def ui_commands(*, port: int) -> list[list[str]]:
    """Webserver and daemon of Dagster."""
    scripts = Path(sys.executable).parent
    workspace = str(Path("workspace.yaml").absolute())
    return [
        [str(scripts / "dagster-webserver"), "-w", workspace, "--host", "127.0.0.1", "--port", str(port)],
        [str(scripts / "dagster-daemon"), "run", "-w", workspace],
    ]


def serve_ui(platform: Platform, *, port: int) -> int:
    """Run webserver and daemon in the foreground until one of them ends; returns its exit code.

    Raises
    ------
    Unavailable
        The port is taken.
    """
    require_free("127.0.0.1", port)
    with running(ui_commands(port=port), ui_environment(platform), log=None) as children:
        try:
            while True:
                for child in children:
                    if (code := child.poll()) is not None:
                        return code
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0


def ui_environment(platform: Platform) -> dict[str, str]:
    """What Dagster's servers must find in their environment."""
    return child_environment(DAGSTER_HOME=str(platform.home / "dagster"), MLPLATFORM_HOME=str(platform.home))


def require_free(host: str, port: int) -> None:
    """Refuse a port that something listens on.

    Raises
    ------
    Unavailable
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                f"port {port} is taken on {host}. Stop what listens there, or choose another port"
            ) from error


@contextmanager
def running(
    commands: Sequence[Sequence[str]], environment: dict[str, str], log: Path | None
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Run some servers, their output in `log` (None: on the terminal), and stop them at the end, by process id."""
    # Asked to stop, we stop the servers first: an exit that unwinds, not one that leaves them behind. Set here and not
    # when the command starts, because a Dagster run in this process puts SIGINT's handler in SIGTERM's place, and a
    # shell has a background command ignore SIGINT.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(128 + signal.SIGTERM))
    children: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        output = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(log.open("ab"))
        try:
            for command in commands:
                if shutil.which(command[0]) is None:
                    raise Unavailable(f"{command[0]} is not installed. Run `make setup`")
                children.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            yield children
        finally:
            for child in children:
                child.send_signal(signal.SIGTERM)
            for child in children:
                try:
                    child.wait(stop_seconds)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def wait_until_answering(url: str, child: "subprocess.Popen[bytes]", log: Path, *, seconds: float) -> None:
    """Wait until a server answers 200.

    Raises
    ------
    Unavailable
        It ended, or does not answer in time; the message gives the last lines of its log.
    """
    until = time.monotonic() + seconds
    said = "no answer"
    while time.monotonic() < until and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
        except OSError as error:
            said = str(error)
        time.sleep(0.1)
    state = "does not answer" if child.poll() is None else f"ended with {child.returncode}"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise Unavailable(f"{url} {state} ({said}). The end of {log}:\n{tail}")
