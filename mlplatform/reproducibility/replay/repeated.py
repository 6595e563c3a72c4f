"""Answers that repeat an earlier one: which one, by the log.

A gateway remembers answers of the model for a while, and gives one again to the same request: because it may, or since
the model does not answer. The log has the earlier answer too; it is found by what was asked, in the columns of the
model, however the request was written.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.log_rows import collected, not_picked_up, stored
from mlplatform.monitoring.pickup import log_files
from mlplatform.monitoring.prediction_log import SHADOW, schema
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.reproducibility.replay.answered import differing, told
from mlplatform.reproducibility.replay.logged import asked

slack = timedelta(minutes=1)
"""How much later than it came a request may have been answered, and so be remembered."""

times_repeated = 100
"""An answer whose features have no revision is remembered anew each time that it is given again, and grows older so."""


class Earlier(NamedTuple):
    """What a row repeats."""

    row: pl.DataFrame
    """(1, …) of the log; (0, …) where there is none."""

    fault: str = ""
    """Why it is not what it should repeat."""


def may_repeat() -> pl.Expr:
    """Rows that say that they repeat an answer: what was not computed, and is the model's all the same."""
    return (pl.col("source") == "cached") | ((pl.col("source") == "model") & pl.col("features").is_null())


def earlier(
    platform: Platform, domain: Domain, bundle: Bundle, rows: pl.DataFrame, values: Sequence[tuple[Any, ...]]
) -> list[Earlier]:
    """The answer that each row repeats: the newest equal one to an equal request, of an age at which it may be given.

    Parameters
    ----------
    rows : (n, …) of the log, each `may_repeat`
    values : (n,) their requests, as `asked` reads them

    Raises
    ------
    DataError
        A file of the log is gone or damaged.
    """
    serving = bundle.model.serving
    ages = {"cached": serving.cached_fallback_for + slack, "model": serving.cache_for * times_repeated + slack}
    found: list[Earlier] = [Earlier(pl.DataFrame(schema=schema))] * rows.height
    # What lies between two days of them is not read.
    days = rows.select(pl.col("received").dt.date().alias("day"), "source").with_row_index("place")
    for _, of_day in days.group_by("day", "source", maintain_order=True):
        places = of_day.get_column("place").to_list()
        repeating = rows[places]
        age = ages[repeating["source"][0]]
        log = _Log(platform, domain, bundle, repeating.get_column("received"), age)
        own = [values[place] for place in places]
        for place, each in zip(places, _of_day(log, bundle, repeating, own, age), strict=True):
            found[place] = each
    return found


class _Log:
    """What the model of a manifest answered itself before some answers were repeated, and a gateway may remember."""

    def __init__(self, platform: Platform, domain: Domain, bundle: Bundle, repeated: pl.Series, age: timedelta) -> None:
        first, last = repeated.min(), repeated.max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        since, until = first - age, last + slack
        self._platform = platform
        # Before the files are listed: what is picked up in between is met twice, and not missed.
        fresh = [each.lazy() for each in not_picked_up(platform, domain, since, [bundle.digest])]
        files = log_files(platform, domain, since).filter(pl.col("first") <= until)
        self._paths = files.get_column("path").to_list()
        logged = [*fresh, *([stored(platform, self._paths)] if self._paths else [])]
        self._answers = pl.concat([pl.LazyFrame(schema=schema), *logged]).filter(
            _remembered(bundle.digest, since, until)
        )

    def told(self, chosen: pl.Expr | None = None) -> pl.DataFrame:
        """What was asked and answered, without what it was computed from: that is most of a row."""
        rows = self._answers if chosen is None else self._answers.filter(chosen)
        return collected(self._platform, rows.select(_compared), self._paths)

    def whole(self, named: pl.DataFrame) -> pl.DataFrame:
        """(n, …) The rows of some answers, in the same order."""
        ids = named.get_column("request_id").unique().implode()
        rows = collected(self._platform, self._answers.filter(pl.col("request_id").is_in(ids)), self._paths)
        rows = rows.unique(_identity, keep="last", maintain_order=True)
        return named.select(_identity).join(rows, on=_identity, how="left", maintain_order="left").select(list(schema))


def _of_day(
    log: _Log, bundle: Bundle, rows: pl.DataFrame, values: Sequence[tuple[Any, ...]], age: timedelta
) -> list[Earlier]:
    """What some rows of one tier repeat, which came on one day."""
    # Mostly it was written alike; only where it was not is every request of the time read.
    alike = log.told(pl.col("request").is_in(rows.get_column("request").unique().implode()))
    found = _found(bundle, rows, values, alike, age)
    lacking = [place for place, each in enumerate(found) if each.row.is_empty()]
    if lacking:
        again = _found(bundle, rows[lacking], [values[place] for place in lacking], log.told(), age)
        for place, each in zip(lacking, again, strict=True):
            found[place] = each
    there = [place for place, each in enumerate(found) if each.row.height]
    if there:
        whole = log.whole(pl.concat(found[place].row for place in there))
        for number, place in enumerate(there):
            found[place] = Earlier(whole[number])
    return found


_identity = ["request_id", "arm", "model", "received"]
_compared = [*_identity, "at", "request", "prediction", "probability", "confidence", "needs_review", "source"]


def _remembered(manifest: str, since: datetime, until: datetime) -> pl.Expr:
    """What the model of a manifest answered itself, and a gateway may have remembered."""
    return (
        (pl.col("manifest") == manifest)
        & pl.col("received").is_between(since, until)
        & (pl.col("source") == "model")
        & (pl.col("arm") != SHADOW)
        & pl.col("features").is_not_null()
        & ~pl.col("degraded")
    )


def _found(
    bundle: Bundle,
    rows: pl.DataFrame,
    values: Sequence[tuple[Any, ...]],
    candidates: pl.DataFrame,
    age: timedelta,
) -> list[Earlier]:
    read = asked(candidates, bundle.domain.requests.columns)
    by_request: dict[tuple[Any, ...], list[int]] = {}
    for place, own in zip(read.kept, read.values, strict=True):
        by_request.setdefault(own, []).append(place)
    answers, came = told(candidates), candidates.get_column("received").to_list()
    found = []
    for request, answer, at in zip(values, told(rows), rows.get_column("received"), strict=True):
        of_model = answer._replace(source="model")
        since, until = at - age, at + slack
        there = [place for place in by_request.get(request, []) if since <= came[place] <= until]
        same = [place for place in there if not differing(of_model, answers[place])]
        newest = max(same or there, key=lambda place: came[place], default=None)
        if newest is None:
            found.append(Earlier(candidates.clear()))
        elif same:
            found.append(Earlier(candidates[newest]))
        else:
            name, difference = candidates["request_id"][newest], differing(of_model, answers[newest])
            found.append(Earlier(candidates.clear(), f"it should repeat the answer to {name}, but its {difference}"))
    return found
