"""Nothing leaves the machine: the whole chain, watched in every process that it starts.

Two watches. Every Python process asks a hook before it connects, sends or looks a name up; it writes down and refuses
whatever is not this machine. What is no Python (uv, git) and heeds a proxy finds one that answers nobody and counts.
"""

import ast
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.operations import servers
from mlplatform.provenance.platform import Platform
from mlplatform.settings import telemetry_off

pytestmark = pytest.mark.end_to_end

NAME = "synthetic/late_order"
SECONDS = 240.0

GUARD = """
import ipaddress, os, socket, sys

# A machine may ask for its own name: BentoML does, for its metrics.
OWN_NAME = socket.gethostname()

def is_here(host):
    if isinstance(host, bytes):
        host = host.decode()
    if not isinstance(host, str) or host in ("", "localhost", OWN_NAME):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified

def host_of(event, given):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = given[1]
        return address[0] if isinstance(address, tuple) and address else ""
    return given[0]

def write(name, what):
    told = os.open(os.path.join(os.environ["GUARD_FOLDER"], name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(told, (repr(what) + "\\n").encode())
    os.close(told)

EVENTS = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
          "socket.gethostbyaddr"}

def guard(event, given):
    if event in EVENTS:
        host = host_of(event, given)
        if not is_here(host):
            write("attempts", (event, host, sys.argv))
            raise PermissionError("the guard of the test refuses " + repr(host))

write("processes", (sys.orig_argv, dict(os.environ)))
sys.addaudithook(guard)
"""

CHAIN = f"""
from mlplatform.cli.command import app
for arguments in (["land", "synthetic"], ["backfill", "synthetic"], ["train", "{NAME}"]):
    app(arguments, standalone_mode=False)
"""

TRIES = """
import socket, urllib.request
for number, kind in enumerate((socket.SOCK_STREAM, socket.SOCK_DGRAM)):
    with socket.socket(socket.AF_INET, kind) as outside:
        for attempt in (outside.connect, outside.connect_ex, lambda address: outside.sendto(b"", address)):
            try:
                attempt(("192.0.2.1", 9))
            except OSError:
                print("refused")
for look_up in (lambda: socket.getaddrinfo("telemetry.invalid", 443), lambda: socket.gethostbyname("telemetry.invalid"),
                lambda: urllib.request.urlopen("http://telemetry.invalid/", timeout=10)):
    try:
        look_up()
    except OSError:
        print("refused")
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
    print("connected")
"""


class Proxy:
    """Takes connections, hangs up, and counts."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.met: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._server.accept()
            except OSError:  # closed
                return
            with caller:
                caller.settimeout(5)
                self.met.append(caller.recv(200))


@dataclass(frozen=True)
class Watch:
    """What was noticed."""

    folder: Path
    proxy: Proxy

    @property
    def variables(self) -> dict[str, str]:
        """What a process must find in its environment. Not set in the test's own: it would remember the proxy."""
        here = f"http://127.0.0.1:{self.proxy.port}"
        proxies = {name: here for each in ("http_proxy", "https_proxy", "all_proxy") for name in (each, each.upper())}
        path = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        local = dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
        return {**proxies, **local, "PYTHONPATH": path, "GUARD_FOLDER": str(self.folder)}

    @property
    def attempts(self) -> list[Any]:
        """Event, host and program of everything that would have left the machine."""
        return self._told("attempts")

    @property
    def processes(self) -> list[Any]:
        """Command line and environment of every Python process."""
        return self._told("processes")

    def _told(self, name: str) -> list[Any]:
        path = self.folder / name
        return [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """What to start processes with, so that they and all that they start are watched."""
    folder = tmp_path / "guard"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(GUARD)
    proxy = Proxy()
    yield Watch(folder, proxy)
    proxy.close()


def python(program: str, home: Path, watch: Watch) -> "subprocess.CompletedProcess[str]":
    """Run a program in a watched process that is told nothing about telemetry."""
    own = {name: value for name, value in os.environ.items() if name not in telemetry_off}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**own, **watch.variables, "MLPLATFORM_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_the_watch_notices_whatever_would_leave(watch: Watch, tmp_path: Path) -> None:
    """Every way out is refused and written down, a proxied one is counted, and what stays on the machine is let be."""
    done = python(TRIES, tmp_path, watch)
    assert done.stdout.split() == ["refused"] * 9 + ["connected"], done.stdout
    events = [(event, host) for event, host, _ in watch.attempts]
    address, name = "192.0.2.1", "telemetry.invalid"
    tried = [("socket.connect", address), ("socket.connect", address), ("socket.sendto", address)]
    assert events == [*tried, *tried, ("socket.getaddrinfo", name), ("socket.gethostbyname", name)]
    assert len(watch.proxy.met) == 1 and watch.proxy.met[0].startswith(b"GET http://telemetry.invalid/")


def test_nothing_leaves_the_machine(watch: Watch, tmp_path: Path) -> None:
    """Landed, computed, judged by Great Expectations, logged to MLflow, built, served and shown: all in here."""
    platform = Platform(home=tmp_path / "home")
    done = python(CHAIN, platform.home, watch)
    assert done.returncode == 0, done.stdout
    tag = servers.champion_tag(platform, DOMAIN, DOMAIN.model("late_order"))
    port, ui_port = free_ports(2)
    log, ui_log = tmp_path / "bento.log", tmp_path / "dagster.log"
    serve = [servers.bento_command(tag, host="127.0.0.1", port=port)]
    show = servers.ui_commands(port=ui_port)
    with (
        servers.running(serve, servers.bento_environment(platform) | watch.variables, log) as (bento,),
        servers.running(show, servers.ui_environment(platform) | watch.variables, ui_log) as (web, _),
    ):
        servers.wait_until_answering(f"http://127.0.0.1:{port}/readyz", bento, log, seconds=120)
        servers.wait_until_answering(f"http://127.0.0.1:{ui_port}/server_info", web, ui_log, seconds=120)
        assert 0 <= answer(port)["probability"] <= 1

    assert watch.attempts == []
    assert watch.proxy.met == []
    commands = [" ".join(command) for command, _ in watch.processes]
    for part in ("bentoml build", "bentoml serve", "dagster-webserver", "dagster-daemon", "dagster api grpc"):
        assert any(part in command for command in commands), (part, commands)
    # The first process is told nothing and silences itself and all that it starts.
    (_, first), *others = watch.processes
    assert telemetry_off.keys().isdisjoint(first)
    for command, environment in others:
        assert {variable: environment.get(variable) for variable in telemetry_off} == telemetry_off, command


def answer(port: int) -> Any:
    """What the Bento answers to the domain's example."""
    asked = {name: value for name, value in DOMAIN.requests.example.items() if name != "at"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        data=json.dumps(asked).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as told:
        return json.load(told)
