"""Errors as `application/problem+json`: one form for every refusal, readable by people and by programs.

References
----------
RFC 9457, "Problem Details for HTTP APIs".
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """A refusal.

    Parameters
    ----------
    status : HTTP status
    detail : what is wrong and what to do next
    more : further members, such as `errors`
    """
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return Response(
        msgspec.json.encode(content), status, headers=dict(headers or {}), media_type="application/problem+json"
    )


def invalid_fields(fields: Mapping[str, str], *, headers: Mapping[str, str]) -> Response:
    """422, naming each field and what is wrong with it."""
    # As plain `str`: a refusal may be of a class of its own, which msgspec does not encode.
    errors = [{"field": str(name), "reason": str(reason)} for name, reason in fields.items()]
    return problem(422, "the request breaks its contract; each field at fault is named", headers=headers, errors=errors)
