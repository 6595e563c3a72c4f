"""A headless Chromium driven over its own debugging protocol: the browser that the system has, nothing downloaded."""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from mlplatform_tests.fakes.waiting import until

BUTTONS = "[...document.querySelectorAll('button')].filter(each => {wanted}.test(each.innerText) && !each.disabled)"
STOP_SECONDS = 10.0


def browser() -> str:
    """Path of the browser; the test is skipped where there is none, but CI must have one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("there is no Chromium here, and CI must have one: see .ci/run")
    return found or pytest.skip("there is no Chromium here")


class Page:
    """The one page of a running browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0

    def show(self, url: str) -> None:
        """Go to an address."""
        self._send("Page.navigate", url=url)

    def text(self) -> str:
        """What a person could read on the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def evaluate(self, expression: str) -> Any:
        """Value of an expression in the page; None while it is loading."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer.get("result", {}).get("value")

    def click(self, label: str, *, seconds: float) -> None:
        """Click the last button that can be clicked and whose text has `label` in it, as soon as there is one."""
        buttons = BUTTONS.format(wanted=f"/{re.escape(label)}/")
        until(
            lambda: self.evaluate(f"(found => found.length && (found.at(-1).click(), true))({buttons})"),
            seconds=seconds,
            what=f"a button {label!r} on the page",
        )

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            told: dict[str, Any] = json.loads(self._socket.recv(timeout=30))
            if told.get("id") == self._last:
                # A page that is just being replaced answers with an error; whoever asked asks again.
                result: dict[str, Any] = told.get("result", {})
                return result


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own under `folder`; stopped, with all its processes, at the end."""
    command = [
        browser(),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--no-first-run",
        "--window-size=1600,1200",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder / 'profile'}",
        "about:blank",
    ]
    log = folder / "chromium.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        port = until(lambda: _port(folder / "profile" / "DevToolsActivePort"), seconds=60, what="the browser's port")
        assert port is not None
        with connect(_page(port), max_size=None) as socket:
            yield Page(socket)
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in psutil.wait_procs(children, timeout=STOP_SECONDS)[1]:
            child.kill()


def _port(told: Path) -> int | None:
    lines = told.read_text().split() if told.exists() else []
    return int(lines[0]) if lines else None


def _page(port: int) -> str:
    def look() -> str | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            pages = [each["webSocketDebuggerUrl"] for each in json.load(answer) if each["type"] == "page"]
        return pages[0] if pages else None

    return until(look, seconds=30, what="the browser's page")
