"""Rows of the prediction log as a replay takes them: what was asked, in the columns of the model that answered.

It reads leniently. What was answered was checked when it came, by the version that let it in, which may have been
another one: a field that this model does not know is left out, and one that it knows and was not sent is null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl

from mlplatform.domain.column import Column
from mlplatform.errors import InvalidRequest
from mlplatform.features.view import instant
from mlplatform.scoring.request import read_request, request_frame


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Requests read again."""

    values: list[tuple[Any, ...]]
    """(m,) In the order of the declared columns: equal requests have equal values, whatever their JSON looked like."""

    requests: pl.DataFrame
    """(m, …) request columns, and `at` as the row tells it."""

    kept: list[int]
    """(m,) Places in the rows."""

    refused: Mapping[int, str]
    """Place -> why it is no request."""


def asked(rows: pl.DataFrame, columns: Sequence[Column]) -> Asked:
    """Read the requests of some rows again.

    Parameters
    ----------
    rows : (n, …) of the log, with `request` and `at`
    columns : as the bundle declares them
    """
    # Nothing that was answered is refused now: neither rules nor the lack of a field are held against it.
    lenient = tuple(replace(column, severity="warning", nullable=True) for column in columns)
    names = {column.name for column in columns}
    values: list[tuple[Any, ...]] = []
    kept: list[int] = []
    refused: dict[int, str] = {}
    instants: list[datetime] = []
    for place, (body, at) in enumerate(rows.select("request", "at").iter_rows()):
        if body is None or at is None:
            refused[place] = "the row has none" if body is None else "the row does not say when it was made"
            continue
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
            if (own := fields.get("at")) is not None and "at" not in names and _instant(own) != at:
                raise InvalidRequest({"at": f"the request is of {own}, the row of {at.isoformat()}"})
            read = read_request({name: value for name, value in fields.items() if name in names}, lenient)
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidRequest) as error:
            refused[place] = str(error)
            continue
        values.append(read)
        kept.append(place)
        instants.append(at)
    requests = request_frame(values, lenient).with_columns(pl.Series("at", instants, dtype=instant))
    return Asked(values=values, requests=requests, kept=kept, refused=refused)


def _instant(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
