"""HTTP on a connection, as uvicorn does it, for clients that mean well and for those that do not.

uvicorn closes a connection that is idle between two requests. One that never asks, or sends its headers a byte now and
then, it would keep for ever: ten thousand of those are an outage; and it would keep however many headers one sends.
Bodies have their own time and length (`access.read_body`).
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.problem import CONTENT_TYPE, problem_body

HEADER_BYTES = 1024 * 1024
"""Of headers that are not whole yet, and of what came in one piece with them. Browsers send some kilobytes of them, and
proxies take 8 to 64."""

HEADER_SECONDS = 10.0
"""From the connection, or from the first byte of a later request, to the end of its headers."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    _timer: asyncio.TimerHandle | None = None
    _in_headers = True
    _taken = 0
    """Bytes since headers began."""

    def connection_made(self, transport: Any) -> None:
        """A client is there, and has not asked yet."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """A piece of a request; whether its headers are whole is known afterwards."""
        super().data_received(data)
        if not self._in_headers:
            self._forget()
        elif not self.transport.is_closing():
            self._taken += len(data)
            if self._taken > HEADER_BYTES:
                self._refuse(431, f"the headers are longer than {HEADER_BYTES} bytes. Send less")
            elif self._timer is None:
                self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP; uvicorn itself would say so as plain text."""
        self._refuse(400, msg)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_headers, self._taken = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are whole."""
        self._in_headers = False
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, detail: str) -> None:
        content = problem_body(status, detail, {})
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {CONTENT_TYPE}\r\n"
        head += f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + content)
        self.transport.close()

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
