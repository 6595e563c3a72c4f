"""What was served on a day, as it was logged: requests, when they were asked, and the vectors they were answered from.

Of a manifest with very many answers a part is taken, by the hash of the request's id: the same rows each time, and of a
day that grows, rows taken before are lost only to the size. It judges nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.column import Column
from mlplatform.domain.domain import Domain
from mlplatform.errors import InvalidRequest
from mlplatform.features.view import instant
from mlplatform.monitoring.pickup import answered
from mlplatform.provenance.platform import Platform
from mlplatform.scoring.request import read_request, request_frame

Vectors = npt.NDArray[np.float32]

rows_at_most = 20_000
"""Rows of one manifest and day that are taken: some seconds of work, and a skew of one row in 5,000 is found 98 times
in 100. Fewer would miss what happens to few; more only costs time."""

clocks_apart = timedelta(minutes=10)
"""A request's time and the time when it came: further apart than this, one of both is wrong. Clocks of servers differ
by less, time zones by 15 minutes at least."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """The answers of one manifest on one day."""

    model: str
    """Name of the model in its domain."""

    manifest: str
    answers: int
    computed: int
    """Answers whose features were computed; the others (repeated from the cache, or fallen back before) have none."""

    rows: pl.DataFrame
    """Those of them that are taken: `request_id`, `at`, `received`, `request`, `features`, `views`; by time and id."""

    def vectors(self, width: int) -> Vectors:
        """(n, width) float32, NaN where missing."""
        return self.rows.get_column("features").list.to_array(width).to_numpy()

    def views(self) -> dict[str, pl.DataFrame]:
        """By `owner/view`, what was read of it for each of the rows, as `views_read` tells it."""
        return views_read(self.rows)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Requests as the domain reads them today."""

    requests: pl.DataFrame
    """(m, …) request columns and `at`: the instant at which each was really asked."""

    kept: list[int]
    """(m,) Places in `Served.rows`."""

    refused: Mapping[int, str]
    """Place -> why the domain does not read this request any more."""

    misdated: list[int]
    """Places in `Served.rows` of requests that were answered as of another instant than the one they were asked at."""


def served_on(platform: Platform, domain: Domain, day: str, *, at_most: int = rows_at_most) -> list[Served]:
    """What each manifest served on a day, those with the most answers first.

    Parameters
    ----------
    at_most : rows of one manifest to take
    """
    log = answered(platform, domain, day)
    if log is None:
        return []
    of = ["model", "manifest"]
    listed = log.select(*of, "request_id", computed=pl.col("features").is_not_null()).collect()
    found = []
    for (model, manifest), answers in listed.partition_by(of, as_dict=True).items():
        ids = answers.filter("computed").get_column("request_id")
        wanted = (pl.col("model") == model) & (pl.col("manifest") == manifest) & pl.col("features").is_not_null()
        taken = log.filter(wanted).select("request_id", "at", "received", "request", "features", "views")
        if len(ids) > at_most:
            chosen = ids.filter(drawn(ids, at_most / len(ids)))
            taken = taken.filter(pl.col("request_id").is_in(chosen.implode()))
        rows = taken.collect().sort("received", "request_id")
        found.append(
            Served(model=model, manifest=manifest, answers=answers.height, computed=len(ids), rows=rows),
        )
    return sorted(found, key=lambda each: (-each.answers, each.model, each.manifest))


def views_read(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """By `owner/view`, (n, 5): what was read of the online store, null where nothing was.

    Its `version`, the `publication` that it held, and of each row the `status`, and the `event_time` and `revision` of
    the value.

    Parameters
    ----------
    rows : (n, …) of the log
    """
    numbered = rows.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"), "views")
    told = numbered.explode("views", empty_as_null=False, keep_nulls=False).unnest("views")
    return {
        str(view): numbered.select("row")
        .join(read, on="row", how="left", maintain_order="left")
        .select(
            "version",
            pl.col("revision").alias("publication"),
            "status",
            "event_time",
            pl.col("value_revision").alias("revision"),
        )
        for (view,), read in told.partition_by("view", as_dict=True).items()
    }


def drawn(ids: pl.Series, share: float) -> pl.Series:
    """Which ids belong to a share, by their hash: a larger share holds all of a smaller one.

    Examples
    --------
    >>> ids = pl.Series([f"r{number}" for number in range(1000)])
    >>> half, tenth = drawn(ids, 0.5), drawn(ids, 0.1)
    >>> bool((half | ~tenth).all()), bool(half.sum() > tenth.sum() > 50)
    (True, True)
    """
    bound = int(share * 2**64)
    hashes = (int.from_bytes(blake2b(each.encode(), digest_size=8).digest(), "little") for each in ids)
    return pl.Series([each < bound for each in hashes], dtype=pl.Boolean)


def asked(rows: pl.DataFrame, columns: Sequence[Column]) -> Asked:
    """Read the requests of some logged rows again.

    A request was asked when it came, or when it itself says so (`at`; it is taken only where requests may bring their
    time). What it was answered as of should be just that.
    """
    values: list[tuple[Any, ...]] = []
    kept, misdated = [], []
    refused: dict[int, str] = {}
    instants: list[datetime] = []
    declared = tuple(columns)
    for place, (body, at, received) in enumerate(rows.select("request", "at", "received").iter_rows()):
        fields = msgspec.json.decode(body)
        own = _instant(fields.pop("at", None))
        try:
            values.append(read_request(fields, declared))
        except InvalidRequest as error:
            refused[place] = str(error)
            continue
        kept.append(place)
        instants.append(own or (at if abs(at - received) <= clocks_apart else received))
        if instants[-1] != at:
            misdated.append(place)
    requests = request_frame(values, declared).with_columns(pl.Series("at", instants, dtype=instant))
    return Asked(requests=requests, kept=kept, refused=refused, misdated=misdated)


def _instant(text: object) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if isinstance(text, str) else None
