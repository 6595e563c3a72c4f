"""A webhook on this machine for what Apprise sends to `json://`: takes it, refuses it, keeps it waiting, is gone."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class AlertEndpoint:
    """Keeps its port while it is down."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        """Bodies that were answered with 200."""

        self.asked = 0
        self.status = 200
        self.location = ""
        self.hangs = threading.Event()
        """While it is set, who comes waits."""

        self._release = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.up()

    def url(self, secret: str = "secret-path") -> str:
        """For an Apprise configuration; it waits a third of a second for an answer."""
        return f"json://127.0.0.1:{self.port}/{secret}?rto=0.3&cto=0.3"

    def up(self) -> None:
        """Listen."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.asked += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if endpoint.hangs.is_set():
                    endpoint._release.wait(30)
                    return
                if endpoint.status == 200:
                    endpoint.taken.append(body)
                self.send_response(endpoint.status)
                if endpoint.location:
                    self.send_header("Location", endpoint.location)
                self.end_headers()

            def log_message(self, *told: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def down(self) -> None:
        """Be gone."""
        if self._server is not None:
            self._release.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None
