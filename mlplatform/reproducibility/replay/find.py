"""Finding a logged answer again: by its id, or by chance among those of a day.

An id says nothing of when it was given, so without a day the log is looked through from its newest day back, one column
of it; and the segments of this machine that no pick-up has taken yet are looked into first. What it refuses: an id that
nothing has, saying what to try; and the id of a request of many rows, each of which is an answer of its own.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import RemovedByPolicy, UnknownRequest
from mlplatform.features.tombstones import tombstones
from mlplatform.monitoring.log_rows import collected, not_picked_up, of_request, stored
from mlplatform.monitoring.pickup import log_files, rows_by_day
from mlplatform.monitoring.prediction_log import SHADOW, schema
from mlplatform.monitoring.served import drawn
from mlplatform.provenance.platform import Platform

rows_at_once = 1_000_000
"""Of the log whose ids are read at a time: 0.1 s, and an id of yesterday is found without a look at last year."""

_identity = ["request_id", "arm", "model", "received"]


def find(platform: Platform, domain: Domain, request_id: str, *, day: str | None = None) -> pl.DataFrame:
    """All rows of a request: its answer first, then what the shadow scored of it.

    Where a caller gave one id to several requests, those of the newest day are given, in the order in which they came.
    A request of many rows that had it too is not among them.

    Parameters
    ----------
    day : ISO, UTC, on which the request came; None: any

    Returns
    -------
    rows : as `prediction_log.schema` has them; not picked up yet, they have no digest

    Raises
    ------
    UnknownRequest
        There is no such answer, or there are several in one request.
    RemovedByPolicy
        The answers of the day were removed.
    DataError
        A file of the log is damaged.
    """
    came = pl.col("received").dt.date()
    # First: what is picked up in between is met twice, and not missed.
    waiting = not_picked_up(platform, domain, request_id=request_id, at_most=rows_at_once)
    files = _files(platform, domain, day)
    # Of the two the table's: it has a digest.
    rows = pl.concat([_of_newest_day(platform, files, request_id), *waiting])
    rows = rows.unique(_identity, keep="first", maintain_order=True)
    if day is not None:
        rows = rows.filter(came == date.fromisoformat(day))
    found = rows.filter(pl.col("request_id") == request_id)
    if found.is_empty():
        raise _unknown(platform, domain, request_id, day, files, rows.get_column("request_id"))
    return found.filter(came == came.max()).sort(pl.col("arm") == SHADOW, "received", "model")


def find_in_any(
    platform: Platform, domains: Sequence[Domain], request_id: str, *, day: str | None = None
) -> tuple[Domain, pl.DataFrame]:
    """The domain that answered a request, and the rows of it.

    Raises
    ------
    UnknownRequest
        None of them did; where one knows more about the id than the others, it is asked.
    """
    unknown: list[UnknownRequest] = []
    for domain in domains:
        try:
            return domain, find(platform, domain, request_id, day=day)
        except UnknownRequest as error:
            unknown.append(error)
    knowing = [each for each in unknown if each.rows] or unknown
    if len(knowing) == 1:
        raise knowing[0]
    removed = sorted({each for domain in domains for each in _removed(platform, domain)})
    raise UnknownRequest(request_id, f"the log of any domain{_on(day)}", _advice(day, removed))


def days_answered(platform: Platform, domain: Domain) -> set[str]:
    """ISO days on which something was logged, picked up or not."""
    waiting = not_picked_up(platform, domain, at_most=rows_at_once)
    fresh = {day.isoformat() for each in waiting for day in each.get_column("received").dt.date().unique()}
    return fresh | rows_by_day(platform, domain).keys()


def sample(platform: Platform, domain: Domain, day: str, at_most: int) -> pl.DataFrame:
    """Rows of some requests of a day, by time: drawn by their ids, the same ones each time.

    Parameters
    ----------
    at_most : requests; the rows of a shadow come with the answer's

    Raises
    ------
    RemovedByPolicy
        The answers of the day were removed.
    """
    # First: what is picked up in between is met twice, and not missed.
    waiting = [
        each.filter(pl.col("received").dt.date() == date.fromisoformat(day))
        for each in not_picked_up(platform, domain, at_most=rows_at_once)
    ]
    paths = _files(platform, domain, day).get_column("path").to_list()
    if not paths and not any(each.height for each in waiting):
        _refuse_removed(platform, domain, day)
        return pl.DataFrame(schema=schema)
    logged = [stored(platform, paths)] if paths else []
    # Of the two the table's: it has a digest.
    log = pl.concat([*logged, *(each.lazy() for each in waiting)])
    ids = collected(platform, log.select("request_id").unique(), paths).get_column("request_id").sort()
    # Drawn a little more than wanted, for a share meets its number only about.
    share = min(1.0, (at_most + 4 * at_most**0.5 + 4) / max(len(ids), 1))
    chosen = ids.filter(drawn(ids, share)).head(at_most)
    rows = collected(platform, log.filter(pl.col("request_id").is_in(chosen.implode())), paths)
    return rows.unique(_identity, keep="first", maintain_order=True).sort("received", "request_id", "arm")


def _files(platform: Platform, domain: Domain, day: str | None) -> pl.DataFrame:
    """Files of the log by their UTC day, the newest first."""
    files = log_files(platform, domain).with_columns(day=pl.col("first").dt.date())
    if day is not None:
        files = files.filter(pl.col("day") == date.fromisoformat(day))
    return files.sort("last", descending=True)


def _of_newest_day(platform: Platform, files: pl.DataFrame, request_id: str) -> pl.DataFrame:
    """Rows of a request in the table: those of the newest day that has an answer of that id, else of many rows."""
    of_many: object = None
    for _, part in files.group_by(pl.col("rows").cum_sum() // rows_at_once, maintain_order=True):
        # Of a whole part the ids only; whole rows are read of the files that have it.
        met = files.join(_having(platform, part, request_id), on="path")
        newest = met.filter("own").get_column("day").max()
        if newest is not None:
            return _rows_of(platform, files.filter(pl.col("day") == newest), request_id)
        of_many = met.get_column("day").max() if of_many is None else of_many
    if of_many is None:
        return pl.DataFrame(schema=schema)
    return _rows_of(platform, files.filter(pl.col("day") == of_many), request_id)


def _rows_of(platform: Platform, files: pl.DataFrame, request_id: str) -> pl.DataFrame:
    """Rows of a request in some files; an answer and its shadow may lie in two."""
    paths = _having(platform, files, request_id).get_column("path").sort().to_list()
    return collected(platform, stored(platform, paths).filter(of_request(request_id)), paths)


def _having(platform: Platform, files: pl.DataFrame, request_id: str) -> pl.DataFrame:
    """The `path` of those files that have rows of a request, and whether one is called by the `own` id, as it is."""
    paths = files.get_column("path").to_list()
    ids = stored(platform, paths, file="path").filter(of_request(request_id))
    own = (pl.col("request_id") == request_id).any()
    return collected(platform, ids.group_by("path").agg(own=own), paths)


def _unknown(
    platform: Platform, domain: Domain, request_id: str, day: str | None, files: pl.DataFrame, rows: pl.Series
) -> UnknownRequest:
    where = f"the log of {domain.name}{_on(day)}"
    if len(rows):
        names = sorted(rows.unique(), key=lambda each: (len(each), each))
        last = f" to {names[-1]}" if len(names) > 1 else ""
        advice = f"It was a request of many rows, each an answer of its own: name one, {names[0]}{last}"
        return UnknownRequest(request_id, where, advice, rows=len(names))
    if day is not None:
        _refuse_removed(platform, domain, day)
    days = files.get_column("day").cast(pl.String).unique().sort().to_list()
    held = f" ({days[0]} to {days[-1]})" if days and day is None else ""
    return UnknownRequest(request_id, where + held, _advice(day, _removed(platform, domain)))


def _removed(platform: Platform, domain: Domain) -> list[str]:
    """Days whose answers were removed."""
    return sorted(name for kind, name in tombstones(platform, domain) if kind == "answers")


def _refuse_removed(platform: Platform, domain: Domain, day: str) -> None:
    tombstone = tombstones(platform, domain).get(("answers", day))
    if tombstone is not None:
        raise RemovedByPolicy(str(tombstone))


def _on(day: str | None) -> str:
    return "" if day is None else f" on {day}"


def _advice(day: str | None, removed: Sequence[str]) -> str:
    if day is not None:
        return "Leave --day out to look through every day: it is the UTC day on which the request came"
    gone = f", and those of {len(removed)} days up to {removed[-1]} were removed by policy" if removed else ""
    return (
        "The id stands in the answer, as `request_id`, and in its header `X-Request-Id`. Look whether the gateway that "
        f"answered writes to this home: what it logged elsewhere is not here before a pick-up takes it{gone}"
    )
