"""HTTP on a connection, as uvicorn does it, for clients that mean well and for those that do not.

uvicorn closes a connection that is idle between two requests. One that never asks, or sends its headers a byte now and
then, it would keep for ever: ten thousand of those are an outage. Bodies have their own time (`access.read_body`).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""From the connection, or from the first byte of a later request, to the end of its headers."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    _timer: asyncio.TimerHandle | None = None
    _in_headers = True

    def connection_made(self, transport: Any) -> None:
        """A client is there, and has not asked yet."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """A piece of a request; whether its headers are whole is known afterwards."""
        super().data_received(data)
        if not self._in_headers:
            self._forget()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_headers = True
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

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
