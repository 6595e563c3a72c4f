"""Errors as `application/problem+json`: one form for every refusal, readable by people and by programs.

References
----------
RFC 9457, "Problem Details for HTTP APIs".
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.types import Send

CONTENT_TYPE = "application/problem+json"


async def send_problem(
    send: Send, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> None:
    """Send a refusal.

    Parameters
    ----------
    status : HTTP status
    detail : what is wrong and what to do next
    more : further members, such as `errors`
    """
    content = problem_body(status, detail, more)
    told = {"content-type": CONTENT_TYPE, "content-length": str(len(content)), **(headers or {})}
    lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content})


def problem_body(status: int, detail: str, more: Mapping[str, Any]) -> bytes:
    """A refusal as it is sent."""
    title = HTTPStatus(status).phrase
    return msgspec.json.encode({"type": "about:blank", "title": title, "status": status, "detail": detail, **more})


async def send_invalid_fields(send: Send, fields: Mapping[str, str], *, headers: Mapping[str, str]) -> None:
    """422, naming each field and what is wrong with it."""
    # As plain `str`: a refusal may be of a class of its own, which msgspec does not encode.
    errors = [{"field": str(name), "reason": str(reason)} for name, reason in fields.items()]
    detail = "the request breaks its contract; each field at fault is named"
    await send_problem(send, 422, detail, headers=headers, errors=errors)
