"""A headless Chromium driven over its own debugging protocol: the browser that the system has, nothing downloaded."""

import base64
import json
import os
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

CLICK = """
((row, label) => {
    const rows = [...document.querySelectorAll('tr')].filter(each => each.cells[0]?.innerText.trim() === row);
    const found = (row ? rows : [document]).flatMap(each => [...each.querySelectorAll('button, a')])
        .filter(each => each.innerText.includes(label) && !each.disabled);
    return found.length && (found.at(-1).click(), true);
})(%s, %s)
"""
STOP_SECONDS = 10.0
WIDTH, HEIGHT = 1600, 1000
PICTURES = 10


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

    def click(self, label: str, *, seconds: float, row: str = "") -> None:
        """Click the last button or link that can be clicked and whose text has `label` in it, as soon as there is one.

        Parameters
        ----------
        row : look only into the row of a table whose first cell says this
        """
        self.until(CLICK % (json.dumps(row), json.dumps(label)), seconds=seconds, what=f"{label!r} to click on")

    def until(self, expression: str, *, seconds: float, what: str) -> Any:
        """Value of an expression as soon as it is true; `AssertionError` with what is read there when time is over."""
        try:
            return until(lambda: self.evaluate(expression), seconds=seconds, what=what)
        except AssertionError as error:
            error.add_note(self.text())
            raise

    def resize(self, width: int, height: int) -> None:
        """Give the page this size: a window's own size has its frame in it."""
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self) -> bytes:
        """What is seen, as a PNG of 1600 × 1000, once it stands still: two pictures in a row are the same.

        A page with a clock in it never does; then it is the last picture of some.
        """
        seen = b""
        for _ in range(PICTURES):
            before, seen = seen, base64.b64decode(self._send("Page.captureScreenshot", format="png")["data"])
            if seen == before:
                break
        return seen

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
        f"--window-size={WIDTH},{HEIGHT}",
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
            page = Page(socket)
            page.resize(WIDTH, HEIGHT)
            yield page
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
