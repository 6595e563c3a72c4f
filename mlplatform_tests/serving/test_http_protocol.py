"""Connections that never finish asking are closed; those that ask are not, however often."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving import http_protocol
from serving.http_protocol import HttpProtocol

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
SECONDS = 0.3

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """204 to everything."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def served(monkeypatch: pytest.MonkeyPatch, client: Callable[[Reader, Writer], Awaitable[None]]) -> None:
    """Run a client against a server whose headers must come soon."""
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", SECONDS)

    async def run() -> None:
        config = uvicorn.Config(answer, http=HttpProtocol, lifespan="off", log_config=None, timeout_keep_alive=60)
        server = uvicorn.Server(config)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            task = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                await asyncio.wait_for(client(reader, writer), 10)
            finally:
                writer.close()
                server.should_exit = True
                await task

    asyncio.run(run())


def test_who_never_asks_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends without an answer."""

    async def client(reader: Reader, _writer: Writer) -> None:
        assert await reader.read() == b""

    served(monkeypatch, client)


def test_who_asks_a_byte_at_a_time_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte does not buy more time; for the second request of a connection as for the first."""

    async def client(reader: Reader, writer: Writer) -> None:
        writer.write(REQUEST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        for byte in REQUEST * 20:
            writer.write(bytes([byte]))
            if reader.at_eof():
                break
            try:
                assert await asyncio.wait_for(reader.read(1), SECONDS / 10) == b""
            except TimeoutError:
                continue
        assert reader.at_eof()

    served(monkeypatch, client)


def test_who_asks_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle between two requests for longer than headers may take."""

    async def client(reader: Reader, writer: Writer) -> None:
        for _ in range(3):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
            await asyncio.sleep(SECONDS * 1.5)

    served(monkeypatch, client)
