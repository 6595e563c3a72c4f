"""Many rows in one request: as JSON, or as an Arrow IPC stream in and out.

Each row goes to the arm that the plan gives it. Rows are taken through the predictor in parts, so that those who ask
for one row in between wait for one part and not for all of them. A row that breaks the contract is refused alone, with
the reason, and the others are answered.
"""

import asyncio
import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import polars as pl

from mlplatform.domain.column import Column, Contract
from mlplatform.errors import InvalidRequest, MalformedBody, MalformedFile, Unavailable
from mlplatform.features.rules import cast_to_contract, check
from mlplatform.scoring.fallback import AnswerColumns
from mlplatform.scoring.request import MAX_FAULTS, MAX_TEXT
from serving.api_page import ARROW
from serving.arms import Arms
from serving.arrow_stream import SEVERAL, STREAM, examine
from serving.batch import Asks, Batch
from serving.json_body import MAX_BYTES
from serving.live_model import LiveModel
from serving.refusals import faults
from serving.request_fit import RequestFit

PART_ROWS = 4096
"""Rows scored at a time: some 10 ms of a worker, which is what a single request may have to wait."""

MAX_ROWS = 200_000
"""Of one request: twice what it is meant for. A row takes some 2 kB until it is answered, however short it came."""

SECONDS = 60.0
"""Budget of a bulk request; whoever sends a hundred thousand rows waits for them."""


async def answer_bulk(
    arms: Arms, champion: LiveModel, body: bytes, kind: str, caller: str, request_id: str, received: float
) -> tuple[str, bytes]:
    """The answers to many rows.

    Parameters
    ----------
    champion : of the arms, when the request was let in
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
    Unavailable
        As `LiveModel.answer_rows`.
    """
    if kind == ARROW:
        rows, refused = await asyncio.to_thread(_arrow_rows, champion, body, champion.predictor.time())
        bodies: list[bytes] = []
    else:
        rows, refused, bodies = await asyncio.to_thread(_json_rows, champion, body)
    if refused:
        requests = champion.predictor.bundle.domain.requests
        found = await asyncio.to_thread(faults, refused.values(), requests)
        # Once for the body, however many of its rows: it is held to the number of requests.
        champion.metrics.refused_fields(dict.fromkeys(found, 1))
    positions = [position for position in range(rows.height + len(refused)) if position not in refused]
    deadline = received + SECONDS
    every = rows.height
    names = [f"{request_id}:{position}" for position in positions]
    routed = arms.of_rows(champion, rows, names)
    routes = [route for _, route in routed]
    asks = Asks(
        at=rows.get_column("at").dt.epoch("us").to_list(),
        body=bodies,
        request_id=names,
        caller=[caller] * every,
        canonical=(),
        received=[received] * every,
        deadline=[deadline] * every,
        route=routes,
    )
    columns = champion.predictor.bundle.domain.requests.columns
    # One more than there are workers, so that the next part is ready when a worker is.
    under_way = asyncio.Semaphore(max(1, len(champion.version.sockets)) + 1)

    async def by(live: LiveModel, chosen: list[int], asks: Asks) -> list[Answered]:
        """Some rows by one arm; by the champion there is then, where it was closed meanwhile."""
        own = RequestFit(columns, live.predictor.bundle.domain.requests.columns)
        if own.fault:
            raise Unavailable("the model was replaced meanwhile by one that reads other requests. Ask again")
        own_rows = own.rows(rows[chosen[0] : chosen[-1] + 1] if len(chosen) > chosen[-1] - chosen[0] else rows[chosen])
        try:
            batches, first = await live.answer_rows(asks, own_rows), 0
        except Unavailable:
            if arms.champion is None or arms.champion is live:
                raise
            return await by(arms.champion, chosen, replace(asks, route=[arms.routing.champion] * len(chosen)))
        found = []
        for batch in batches:
            there = chosen[first : first + len(batch.asks)]
            found.append(Answered(live, batch, [positions[row] for row in there]))
            first += len(batch.asks)
        return found

    def reroute(start: int) -> None:
        """Give the champion those rows of a part that break the challenger's own rules."""
        given: dict[LiveModel, list[int]] = {}
        for row in range(start, min(start + PART_ROWS, every)):
            if routed[row][0] is not champion:
                given.setdefault(routed[row][0], []).append(row)
        for live, chosen in given.items():
            fit = RequestFit(columns, live.predictor.bundle.domain.requests.columns)
            if fit.fault:
                continue
            try:
                broken, reason = [chosen[place] for place in live.predictor.broken(fit.rows(rows[chosen]))], "refused"
            except Exception as error:  # noqa: BLE001 - a rule may raise anything, and the champion answers
                live.predictor.tell(f"the challenger raised {type(error).__name__}: {error}")
                broken, reason = chosen, "failed"
            for row in broken:
                routes[row] = arms.instead(champion, reason)
                routed[row] = champion, routes[row]

    async def answered(start: int) -> list[Answered]:
        async with under_way:
            reroute(start)
            arm: dict[LiveModel, list[int]] = {}
            for row in range(start, min(start + PART_ROWS, every)):
                arm.setdefault(routed[row][0], []).append(row)
            return [each for live, chosen in arm.items() for each in await by(live, chosen, asks.chosen(chosen))]

    parts = await asyncio.gather(*(answered(start) for start in range(0, every, PART_ROWS)))
    batches = [each for part in parts for each in part]
    if kind == ARROW:
        return ARROW, await asyncio.to_thread(_arrow_answers, batches, refused)
    return "application/json", await asyncio.to_thread(_json_answers, batches, refused)


class Answered(NamedTuple):
    """Rows that have their answers."""

    live: LiveModel
    """By which they were answered."""

    batch: Batch
    positions: list[int]
    """Where they stood in the request."""


def _arrow_rows(live: LiveModel, body: bytes, at: int) -> tuple[pl.DataFrame, dict[int, dict[str, str]]]:
    """Rows that keep the contract, and why others do not, by position."""
    asked = live.predictor.bundle.domain.requests
    examine(body, max_rows=MAX_ROWS, max_columns=len(asked.columns) + MAX_FAULTS)
    try:
        given = pl.read_ipc_stream(io.BytesIO(body))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise MalformedBody(f"it is no Arrow IPC stream ({reason})", instead=STREAM) from None
    if not given.height:
        raise MalformedBody("it holds no rows", instead="Send some")
    contract = Contract(columns=asked.columns, rules=asked.rules, max_refused_share=1.0)
    unknown = sorted(set(given.columns) - set(contract.names))
    if unknown:
        raise InvalidRequest(dict.fromkeys(unknown, "is no field of a request"))
    try:
        typed = cast_to_contract(given, contract, path="the body")
    except MalformedFile as error:
        raise InvalidRequest({"rows": str(error)}) from None
    refused = _overlong(typed, asked.columns)
    numbered = typed.with_row_index("_row")
    if refused:
        numbered = numbered.filter(~pl.col("_row").is_in(list(refused)))
    checked = check(numbered, contract)
    broken = checked.refused.select("_row", "broken_rules").iter_rows()
    refused |= {position: {"row": f"breaks {rules}"} for position, rules in broken}
    instant = pl.lit(at, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    return checked.kept.drop("_row").with_columns(at=instant), refused


def _json_rows(live: LiveModel, body: bytes) -> tuple[pl.DataFrame, dict[int, dict[str, str]], list[bytes]]:
    # Before anything is made of them: a row of one digit takes two bytes, and thirty times as much when it is decoded.
    if body.count(b",") > MAX_ROWS * (len(live.predictor.bundle.domain.requests.columns) + 2):
        raise MalformedBody(f"it has more than {MAX_ROWS} rows", instead=SEVERAL)
    try:
        given = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"it is no list of JSON objects ({error})", instead="Send one") from None
    if not given:
        raise MalformedBody("it holds no rows", instead="Send some")
    if len(given) > MAX_ROWS:
        raise MalformedBody(f"it has more than {MAX_ROWS} rows", instead=SEVERAL)
    understood, bodies, refused = [], [], {}
    now = live.predictor.time()
    for position, each in enumerate(given):
        if len(memoryview(each)) > MAX_BYTES:
            refused[position] = {"row": f"is longer than {MAX_BYTES} bytes"}
            continue
        try:
            values, at = live.predictor.understand(bytes(each))
        except InvalidRequest as error:
            refused[position] = {str(name): str(reason) for name, reason in error.fields.items()}
        except MalformedBody as error:
            refused[position] = {"row": str(error)}
        else:
            understood.append((position, values, at if live.predictor.request_time else now))
            bodies.append(bytes(each))
    rows = live.predictor.frame([values for _, values, _ in understood], [at for _, _, at in understood])
    broken = live.predictor.broken(rows)
    for index, refusal in broken.items():
        refused[understood[index][0]] = dict(refusal.fields)
    kept = [index for index in range(len(understood)) if index not in broken]
    return (rows[kept], refused, [bodies[index] for index in kept]) if broken else (rows, refused, bodies)


def _overlong(rows: pl.DataFrame, columns: Sequence[Column]) -> dict[int, dict[str, str]]:
    """Rows with a text that is too long in JSON too, which the contract of a table does not say, by position."""
    found: dict[int, dict[str, str]] = {}
    for column in columns:
        if isinstance(column.dtype, pl.String | pl.Categorical):
            longer = rows.get_column(column.name).cast(pl.String).str.len_chars() > MAX_TEXT
            for position in longer.arg_true():
                found.setdefault(position, {})[column.name] = f"{column.name} is longer than {MAX_TEXT} characters"
    return found


def _arrow_answers(answered: list[Answered], refused: dict[int, dict[str, str]]) -> bytes:
    batches = [each.batch for each in answered]
    degraded = [not batch.complete for batch in batches for _ in range(len(batch.asks))]
    columns: dict[str, Any] = {
        name: list(itertools.chain.from_iterable(getattr(batch.answers, name) for batch in batches))
        for name in AnswerColumns._fields
        if batches
    }
    names = [name for batch in batches for name in batch.asks.request_id]
    positions = [position for each in answered for position in each.positions]
    told = pl.DataFrame(
        {**columns, "request_id": names, "_row": positions},
        schema_overrides={"_row": pl.UInt32, "request_id": pl.String},
        strict=False,
    )
    views = {view: None for each in answered for view in each.live.predictor.bundle.manifest.views}
    if batches:
        told = told.with_columns(degraded=pl.Series(degraded) | (pl.col("source") != "model"))
        if views:
            told = told.with_columns(_views(batches, list(views)))
    by = [(each.live.predictor.bundle, len(each.positions)) for each in answered]
    told = told.with_columns(
        model_version=pl.Series([b.manifest.model_version for b, rows in by for _ in range(rows)], dtype=pl.String),
        manifest=pl.Series([bundle.digest for bundle, rows in by for _ in range(rows)], dtype=pl.String),
    )
    if refused:
        errors = {"_row": list(refused), "error": ["; ".join(each.values()) for each in refused.values()]}
        told = pl.concat([told, pl.DataFrame(errors, schema_overrides={"_row": pl.UInt32})], how="diagonal")
    else:
        told = told.with_columns(error=pl.lit(None, dtype=pl.String))
    written = io.BytesIO()
    told.sort("_row").drop("_row").write_ipc_stream(written)
    return written.getvalue()


def _views(batches: list[Batch], views: list[str]) -> pl.Series:
    """What was read of each view: a struct with a struct of `status` and `revision` for each."""
    parts = []
    for view in views:
        statuses: list[str | None] = []
        revisions: list[int | None] = []
        for batch in batches:
            read = batch.views.get(view)
            statuses += read.statuses if read else [None] * len(batch.asks)
            revisions += read.revisions if read else [None] * len(batch.asks)
        told = {"status": pl.Series(statuses, dtype=pl.String), "revision": pl.Series(revisions, dtype=pl.Int64)}
        parts.append(pl.DataFrame(told).to_struct(view))
    return pl.DataFrame(parts).to_struct("views")


def _json_answers(answered: list[Answered], refused: dict[int, dict[str, str]]) -> bytes:
    told = {
        position: said
        for each in answered
        for position, said in zip(each.positions, each.live.predictor.encoded(each.batch), strict=True)
    }
    told |= {position: msgspec.json.encode({"errors": faults}) for position, faults in refused.items()}
    return b'{"answers":[' + b",".join(told[position] for position in range(len(told))) + b"]}"
