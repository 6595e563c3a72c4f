"""The prediction log: every answer that a gateway gave, as it is written and as it lies in the table.

A gateway worker writes its batches as payloads of its own segments (`provenance.segments`), so that an answer waits for
no disk and is not forgotten when the process is killed; `pickup` carries finished segments into the table.
"""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

rows_at_once = 4096
"""Rows of one `Batch` at most: with 500 features and a long request it stays below the size of a segment by far."""

phases = ("queue", "features", "hop", "score", "total")
"""What is timed of an answer: in the table `queue_us` and so on."""


SHADOW = "shadow"
"""The arm whose rows are nobody's answer."""


class Batch(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """The answers of one batch: what is the same for all of them once, then the columns, one entry per row.

    Fields may be added at the end, with a default; none may be moved.
    """

    domain: str
    model: str
    """Name of the model in its domain."""
    manifest: str
    """Digest: names the weights, the feature code and the settings."""
    model_version: str
    device: str
    """Device class that scored, `cpu` or `cuda`."""
    gateway: str
    """Which gateway worker answered."""
    views: dict[str, str]
    """View -> version that the model is pinned to."""
    revisions: dict[str, str | None]
    """View -> revision of the online store that was read; None where none could be."""

    request_id: list[str]
    at: list[int]
    """Instant the features are of: microseconds since the epoch, UTC."""
    received: list[int]
    """When the request came: nanoseconds since the epoch, UTC."""
    request: list[bytes]
    """As it came, JSON in UTF-8; empty where it came in a table."""
    key: list[str | None]
    """Id of the API key, never the key."""
    arm: list[str]
    """`champion` or `challenger`: the arm that answered. `shadow`: the other arm, whose score nobody was given."""
    source: list[str]
    """`model`, or the fallback tier."""
    degraded: list[bool]
    needs_review: list[bool]
    prediction: list[int | float | str | None]
    probability: list[float | None]
    confidence: list[float | None]
    scores: bytes
    """(rows, outputs) float64, C order: calibrated, NaN where the model gave none; empty: it gave none at all."""
    features: bytes
    """(rows, columns) float32, C order, in the order of the manifest; empty: they could not be computed."""
    statuses: dict[str, list[str]]
    """View -> status of the look-up, by row."""
    latency: dict[str, list[int]]
    """Phase (of `phases`) -> microseconds, by row."""
    reason: list[str | None]
    """Why the answer is degraded."""
    table: bytes = b""
    """The requests as an Arrow IPC stream, where they came as a table; then `request` is empty."""
    value_revisions: dict[str, list[int | None]] = {}
    """View -> revision of the partition that the values come from, by row; None where not present."""
    event_times: dict[str, list[int | None]] = {}
    """View -> when the values were last true, microseconds since the epoch, UTC, by row."""
    plan: list[str] = []
    """Version of the plan that it was routed by; empty where there was none."""
    propensity: list[float] = []
    """How probable it was that this arm answered: under exploration it is what an unbiased estimate divides by."""
    computing: str = ""
    """What computed it (`provenance.computing`), JSON; empty where it was not told."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


def encode(batch: Batch) -> bytes:
    """A batch as a payload."""
    return _encoder.encode(batch)


def decode(payload: bytes) -> Batch:
    """A payload as a batch.

    Raises
    ------
    msgspec.DecodeError
        It is none.
    """
    return _decoder.decode(payload)


def log_folder(home: Path, domain: str) -> Path:
    """Where the gateways of a machine write the segments of a domain, and the pick-up finds them."""
    return home / "prediction_log" / domain


schema: Mapping[str, pl.DataType] = {
    "request_id": pl.String(),
    "received": pl.Datetime("us", "UTC"),
    "at": pl.Datetime("us", "UTC"),
    "domain": pl.String(),
    "model": pl.String(),
    "manifest": pl.String(),
    "model_version": pl.String(),
    "device": pl.String(),
    "gateway": pl.String(),
    "key": pl.String(),
    "arm": pl.String(),
    "source": pl.String(),
    "degraded": pl.Boolean(),
    "needs_review": pl.Boolean(),
    "reason": pl.String(),
    "prediction": pl.String(),
    "probability": pl.Float64(),
    "confidence": pl.Float64(),
    "scores": pl.List(pl.Float64()),
    "request": pl.String(),
    "features": pl.List(pl.Float32()),
    "views": pl.List(
        pl.Struct(
            {
                "view": pl.String(),
                "version": pl.String(),
                "revision": pl.String(),
                "status": pl.String(),
                "value_revision": pl.Int64(),
                "event_time": pl.Datetime("us", "UTC"),
            }
        )
    ),
    **{f"{phase}_us": pl.Int64() for phase in phases},
    "plan": pl.String(),
    "propensity": pl.Float64(),
    "computing": pl.String(),
    "digest": pl.String(),
}
"""The table `prediction_log`: one row per answer.

As `Batch` says, and: `prediction` as text (a domain has models of several tasks; the numbers are in `scores`);
`features` in the order of the manifest, NaN where missing, null where they could not be computed; `views` what was read
of the online store, where `revision` names what the store held, and `event_time` and `value_revision` the very row of
the view's table; a phase is null where it was not gone through; `plan`, `propensity` and `computing` are null where
they were not told; `digest` is the hash of the row's other columns, made when it was picked up (`row_digest`), and null
before. A request has a second row, of arm `shadow`, where the other arm scored it too: same `request_id`, `at` and
`received`, its own manifest, scores and latency."""


def frame(batches: Sequence[Batch]) -> pl.DataFrame:
    """Batches as rows of the table, in their order.

    Raises
    ------
    ValueError, polars.exceptions.PolarsError
        The columns of a batch are not of one length.
    """
    rows = [len(each.request_id) for each in batches]
    of_row = np.repeat(np.arange(len(batches)), rows)
    columns: dict[str, Any] = {
        name: pl.Series([getattr(each, name) for each in batches], dtype=pl.String).gather(of_row)
        for name in ("domain", "model", "manifest", "model_version", "device", "gateway")
    }
    for name in ("request_id", "at", "key", "arm", "source", "degraded", "needs_review", "probability", "confidence"):
        columns[name] = _joined(getattr(each, name) for each in batches)
    columns["computing"] = pl.Series([each.computing or None for each in batches], dtype=pl.String).gather(of_row)
    columns["digest"] = pl.Series([None] * int(of_row.size), dtype=pl.String)
    columns["reason"] = _joined(each.reason for each in batches)
    columns["received"] = [each // 1000 for each in _joined(each.received for each in batches)]
    columns["request"] = _joined(_requests(each) for each in batches)
    said = _joined(each.prediction for each in batches)
    columns["prediction"] = [None if each is None else str(each) for each in said]
    columns["scores"] = _vectors([each.scores for each in batches], rows, np.dtype("<f8"))
    columns["features"] = _vectors([each.features for each in batches], rows, np.dtype("<f4"))
    columns["views"] = _joined(_views(each) for each in batches)
    columns["plan"] = _joined([said or None for said in each.plan] or _untold(each) for each in batches)
    columns["propensity"] = _joined(each.propensity or _untold(each) for each in batches)
    for phase in phases:
        columns[f"{phase}_us"] = _joined(each.latency.get(phase) or _untold(each) for each in batches)
    return pl.DataFrame(
        {
            name: values if isinstance(values := columns[name], pl.Series) else pl.Series(values, dtype=dtype)
            for name, dtype in schema.items()
        },
        schema=schema,
    )


def _joined(parts: Iterable[Iterable[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(parts))


def _untold(batch: Batch) -> list[None]:
    return [None] * len(batch.request_id)


def _requests(batch: Batch) -> list[str]:
    """As JSON."""
    if batch.table:
        return pl.read_ipc_stream(io.BytesIO(batch.table)).write_ndjson().split("\n")[:-1]
    return [each.decode(errors="replace") for each in batch.request]


def _at(by_view: Mapping[str, Sequence[Any]], view: str, row: int) -> Any:
    return by_view[view][row] if view in by_view else None


def _views(batch: Batch) -> Iterable[list[dict[str, str | int | None]]]:
    for row in range(len(batch.request_id)):
        yield [
            {
                "view": view,
                "version": version,
                "revision": batch.revisions.get(view),
                "status": _at(batch.statuses, view, row),
                "value_revision": _at(batch.value_revisions, view, row),
                "event_time": _at(batch.event_times, view, row),
            }
            for view, version in batch.views.items()
        ]


def _vectors(parts: Sequence[bytes], rows: Sequence[int], dtype: np.dtype[Any]) -> pl.Series:
    """Matrices as a column of lists, null for the rows of a batch that has none."""
    inner = pl.Float64() if dtype.itemsize == 8 else pl.Float32()
    made = [pl.Series([], dtype=pl.List(inner))]
    # Batches of one width lie side by side nearly always: one conversion for all of them.
    widths = [len(part) // (dtype.itemsize * height) if height else 0 for part, height in zip(parts, rows, strict=True)]
    for width, run in itertools.groupby(range(len(parts)), key=widths.__getitem__):
        each = list(run)
        height = sum(rows[index] for index in each)
        if width == 0:
            made.append(pl.Series([None] * height, dtype=pl.List(inner)))
            continue
        values = np.frombuffer(b"".join(parts[index] for index in each), dtype).reshape(height, width)
        made.append(pl.Series(values, dtype=pl.Array(inner, width)).arr.to_list())
    return pl.concat(made)
