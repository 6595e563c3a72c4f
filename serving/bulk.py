"""Many rows in one request: as JSON, or as an Arrow IPC stream in and out.

Rows are taken through the predictor in parts, so that those who ask for one row in between wait for one part and not
for all of them. A row that breaks the contract is refused alone, with the reason, and the others are answered.
"""

import asyncio
import io
from typing import Any

import msgspec
import polars as pl

from mlplatform.domain.column import Contract
from mlplatform.errors import InvalidRequest, MalformedBody, MalformedFile
from mlplatform.features.rules import cast_to_contract, check
from mlplatform.scoring.fallback import Answer
from serving.api_page import ARROW
from serving.live_model import LiveModel
from serving.predictor import Ask, Batch

PART_ROWS = 4096
"""Rows scored at a time: some 10 ms of a worker, which is what a single request may have to wait."""

SECONDS = 60.0
"""Budget of a bulk request; whoever sends a hundred thousand rows waits for them."""


async def answer_bulk(
    live: LiveModel, body: bytes, kind: str, caller: str, request_id: str, received: float
) -> tuple[str, bytes]:
    """The answers to many rows.

    Parameters
    ----------
    kind : media type of the body: Arrow's, or JSON
    request_id : rows are named `request_id:0`, `request_id:1` and so on
    received : on the gateway's clock

    Returns
    -------
    media type and body: for Arrow a stream with a row for each row, its `error` null where it was answered; for JSON
    `{"answers": [...]}`, each an answer or `{"errors": {field: reason}}`

    Raises
    ------
    MalformedBody
        The body is not what its media type says, or holds no rows.
    InvalidRequest
        Columns are missing, or of a type that cannot be the declared one.
    """
    if kind == ARROW:
        rows, refused, bodies = await asyncio.to_thread(_arrow_rows, live, body)
    else:
        rows, refused, bodies = await asyncio.to_thread(_json_rows, live, body)
    at = live.predictor.time()
    rows = rows.with_columns(pl.lit(at, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")).alias("at"))
    positions = [position for position in range(rows.height + len(refused)) if position not in refused]
    deadline = received + SECONDS
    asks = [
        Ask((), at, body, f"{request_id}:{position}", caller, b"", received, deadline)
        for position, body in zip(positions, bodies, strict=True)
    ]
    parts = [
        live.predictor.predict_rows(asks[start : start + PART_ROWS], rows[start : start + PART_ROWS])
        for start in range(0, rows.height, PART_ROWS)
    ]
    batches: list[Batch] = []
    # As many at a time as there are workers.
    lanes = max(1, len(live.version.sockets))
    for start in range(0, len(parts), lanes):
        for part in await asyncio.gather(*parts[start : start + lanes]):
            for batch in part:
                live.record(batch)
            batches += part
    if kind == ARROW:
        return ARROW, await asyncio.to_thread(_arrow_answers, live, batches, positions, refused)
    return "application/json", await asyncio.to_thread(_json_answers, live, batches, positions, refused)


def _arrow_rows(live: LiveModel, body: bytes) -> tuple[pl.DataFrame, dict[int, dict[str, str]], list[bytes]]:
    """Rows that keep the contract, why others do not by position, and the former as JSON for the log."""
    try:
        given = pl.read_ipc_stream(io.BytesIO(body))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise MalformedBody(f"it is no Arrow IPC stream ({str(error).splitlines()[0][:200]})") from None
    if not given.height:
        raise MalformedBody("it holds no rows")
    asked = live.predictor.bundle.domain.requests
    contract = Contract(columns=asked.columns, rules=asked.rules, max_refused_share=1.0)
    unknown = sorted(set(given.columns) - set(contract.names))
    if unknown:
        raise InvalidRequest(dict.fromkeys(unknown, "is no field of a request"))
    try:
        typed = cast_to_contract(given, contract, path="the body")
    except MalformedFile as error:
        raise InvalidRequest({"rows": str(error)}) from None
    checked = check(typed.with_row_index("_row"), contract)
    broken = checked.refused.select("_row", "broken_rules").iter_rows()
    refused = {position: {"row": f"breaks {rules}"} for position, rules in broken}
    rows = checked.kept.drop("_row")
    bodies = rows.write_ndjson().encode().splitlines()
    return rows, refused, bodies


def _json_rows(live: LiveModel, body: bytes) -> tuple[pl.DataFrame, dict[int, dict[str, str]], list[bytes]]:
    try:
        given = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"it is no list of JSON objects ({error})") from None
    if not given:
        raise MalformedBody("it holds no rows")
    understood, bodies, refused = [], [], {}
    for position, each in enumerate(given):
        try:
            values, _ = live.predictor.understand(bytes(each))
        except InvalidRequest as error:
            refused[position] = {str(name): str(reason) for name, reason in error.fields.items()}
        except MalformedBody as error:
            refused[position] = {"row": str(error)}
        else:
            understood.append((position, values))
            bodies.append(bytes(each))
    rows = live.predictor.frame([values for _, values in understood], [0] * len(understood)).drop("at")
    broken = live.predictor.broken(rows)
    for index, refusal in broken.items():
        refused[understood[index][0]] = dict(refusal.fields)
    kept = [index for index in range(len(understood)) if index not in broken]
    return (rows[kept], refused, [bodies[index] for index in kept]) if broken else (rows, refused, bodies)


def _arrow_answers(
    live: LiveModel, batches: list[Batch], positions: list[int], refused: dict[int, dict[str, str]]
) -> bytes:
    answers = [answer for batch in batches for answer in batch.answers]
    degraded = [not batch.complete for batch in batches for _ in batch.answers]
    manifest = live.predictor.bundle.manifest
    columns: dict[str, Any] = dict(zip(Answer._fields, zip(*answers, strict=True), strict=True)) if answers else {}
    told = pl.DataFrame({**columns, "_row": positions}, schema_overrides={"_row": pl.UInt32}, strict=False)
    if answers:
        told = told.with_columns(degraded=pl.Series(degraded) | (pl.col("source") != "model"))
    if refused:
        errors = {"_row": list(refused), "error": ["; ".join(each.values()) for each in refused.values()]}
        told = pl.concat([told, pl.DataFrame(errors, schema_overrides={"_row": pl.UInt32})], how="diagonal").sort(
            "_row"
        )
    else:
        told = told.with_columns(error=pl.lit(None, dtype=pl.String))
    told = told.drop("_row").with_columns(
        model_version=pl.lit(manifest.model_version), manifest=pl.lit(live.predictor.bundle.digest)
    )
    written = io.BytesIO()
    told.write_ipc_stream(written)
    return written.getvalue()


def _json_answers(
    live: LiveModel, batches: list[Batch], positions: list[int], refused: dict[int, dict[str, str]]
) -> bytes:
    answered = [each for batch in batches for each in live.predictor.encoded(batch)]
    told = dict(zip(positions, answered, strict=True))
    told |= {position: msgspec.json.encode({"errors": faults}) for position, faults in refused.items()}
    return b'{"answers":[' + b",".join(told[position] for position in range(len(told))) + b"]}"
