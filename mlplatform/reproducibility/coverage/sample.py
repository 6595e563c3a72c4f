"""Which logged answers a night replays: some of each age, version, arm and tier, others each night.

The days, and which manifests answered in them, stand in the log's metadata. So a log of years is not read for it: of
each age a few files are, and each night others.

Every kind of answer has the same part of the sample, however rare it is; what is too few for its part is taken whole,
and the others have the rest. A share of the sample is therefore not the share of all answers: what broke a hundred old
answers is to be seen beside a million of yesterday.

A file that cannot be read is a kind of its own: what is drawn of it cannot be given again. What was removed since the
files were listed is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError
from mlplatform.monitoring.log_rows import collected, stored
from mlplatform.monitoring.pickup import log_files
from mlplatform.monitoring.prediction_log import schema
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.replay.verdict import Replayed, Verdict

ages: dict[str, int] = {"day": 1, "week": 7, "month": 30, "quarter": 91, "year": 365}
"""How old an answer is, by the days it is younger than; what is as old as the last is `older`."""

OLDER = "older"

files_at_most = 64
"""Of one age and one set of manifests that are looked into in a night: a service that is asked once a minute leaves a
small file each time."""

files_at_least = 8
"""Of them, where one had enough: rows of one file were answered in the same minute."""

_identity = ["request_id", "received", "manifest", "arm"]
_of_file = ["arm", "source", "model", "model_version"]
_shown = [*dict.fromkeys([*_identity, *_of_file])]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was drawn."""

    rows: pl.DataFrame
    """Rows of the log, by time and id."""

    lost: tuple[Replayed, ...]
    """Drawn of files that cannot be read; called by file and place where their ids cannot be read either."""

    kinds: int
    """Of answers that were met: each age, manifest, arm and tier counted once."""

    logged: int
    """Rows that the log has up to the night."""


def age_of(day: date, night: date) -> str:
    """How old an answer of a day is on a night.

    Examples
    --------
    >>> night = date(2024, 3, 1)
    >>> [age_of(day, night) for day in (night, date(2024, 2, 29), date(2024, 2, 1), date(2020, 1, 1))]
    ['day', 'week', 'month', 'older']
    """
    days = (night - day).days
    return next((age for age, limit in ages.items() if days < limit), OLDER)


def draw(platform: Platform, domain: Domain, night: str, at_most: int) -> Sample:
    """Draw answers that were given up to the end of a night's day; the same for the same log."""
    last = date.fromisoformat(night)
    files = log_files(platform, domain).with_columns(day=pl.col("last").dt.date())
    files = files.filter(pl.col("day") <= last)
    logged = int(files["rows"].sum())
    files = files.with_columns(
        age=pl.col("day").map_elements(lambda day: age_of(day, last), return_dtype=pl.String),
        order=_order(files["path"], night),
    )

    def still(path: str) -> bool:
        # Asked of files that cannot be read: a day may be removed while others are looked at.
        return path in log_files(platform, domain)["path"]

    read = [
        listed
        for _, of in files.sort("order").group_by("age", "lowest", "highest", maintain_order=True)
        for listed in _listed(platform, of, at_most, still)
    ]
    if not read:
        return Sample(rows=pl.DataFrame(), lost=(), kinds=0, logged=logged)
    met = pl.concat(read)
    kinds = met.partition_by("age", "manifest", "arm", "source", "fault", maintain_order=True)
    chosen = _chosen(kinds, night, at_most)
    whole = chosen.filter(pl.col("fault").is_null())
    full, faults = _full(platform, whole, still)
    lost = [chosen.filter(pl.col("fault").is_not_null())]
    lost += [whole.filter(file=path).with_columns(fault=pl.lit(fault)) for path, fault in faults.items()]
    kept = full.unique(_identity, keep="first", maintain_order=True).join(whole, on=_identity, how="semi")
    return Sample(
        rows=kept.sort("received", "request_id", "arm"), lost=_lost(pl.concat(lost)), kinds=len(kinds), logged=logged
    )


def parts(sizes: Sequence[int], at_most: int) -> list[int]:
    """How many to take of each of some sizes: as evenly as they allow, `at_most` together.

    Examples
    --------
    >>> parts([3, 1000, 1000], 103), parts([5, 5], 100), parts([9, 9, 9], 2)
    ([3, 50, 50], [5, 5], [1, 1, 0])
    """
    taken = [0] * len(sizes)
    left, waiting = at_most, sorted(range(len(sizes)), key=lambda place: sizes[place])
    while waiting:
        place = waiting.pop(0)
        # Rounded up while there are more kinds than answers to take, so that as many as can be have one.
        fair = max(left // (len(waiting) + 1), min(left, 1))
        taken[place] = min(sizes[place], fair)
        left -= taken[place]
    return taken


def _listed(platform: Platform, files: pl.DataFrame, wanted: int, still: Callable[[str], bool]) -> list[pl.DataFrame]:
    """What lies in the first files, as many as hold what is wanted, and what kind it is."""
    before = files["rows"].cum_sum() - files["rows"]
    enough = max(files_at_least, files.filter(before < wanted).height)
    read = []
    for file in files.head(min(enough, files_at_most)).iter_rows(named=True):
        path = file["path"]
        try:
            rows, fault = collected(platform, stored(platform, [path]).select(_shown), [path]), None
        except DataError as error:
            if not still(path):
                continue
            rows, fault = _unread(file, wanted).select(_shown), str(error)
        told = {"fault": fault, "age": file["age"], "file": path}
        read.append(rows.with_columns(pl.lit(value, dtype=pl.String).alias(name) for name, value in told.items()))
    return read


def _unread(file: Mapping[str, Any], wanted: int) -> pl.DataFrame:
    """Rows of a file that cannot be read, as the log tells of it; no more than may be drawn."""
    name = file["path"].rpartition("/")[2]
    ids = [f"{name}:{place}" for place in range(min(file["rows"], wanted))]
    told = {"received": file["first"], "manifest": file["lowest"], **{each: file[each] for each in _of_file}}
    return pl.DataFrame({"request_id": ids}).with_columns(
        pl.lit(value, dtype=schema[each]).alias(each) for each, value in told.items()
    )


def _full(
    platform: Platform, chosen: pl.DataFrame, still: Callable[[str], bool]
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The rows themselves; and of the files that cannot be read, why."""
    ids = chosen.get_column("request_id").unique().implode()

    def rows_of(paths: list[str]) -> pl.DataFrame:
        # The files by name, for their rows are large: the filter goes down to them, and what it leaves is read alone.
        return collected(platform, stored(platform, paths).filter(pl.col("request_id").is_in(ids)), paths)

    paths = chosen.get_column("file").unique().sort().to_list()
    parts, faults = [pl.DataFrame(schema=schema)], dict[str, str]()
    try:
        return pl.concat([*parts, *([rows_of(paths)] if paths else [])]), faults
    except DataError:
        for path in paths:
            try:
                parts.append(rows_of([path]))
            except DataError as error:
                if still(path):
                    faults[path] = str(error)
    return pl.concat(parts), faults


def _lost(rows: pl.DataFrame) -> tuple[Replayed, ...]:
    """What nobody can give again without the file that it lies in."""
    return tuple(
        Replayed(
            **{each: row[each] for each in _shown},
            verdict=Verdict(outcome="impossible", cause="record", reason=row["fault"]),
            difference=0.0,
        )
        for row in rows.iter_rows(named=True)
    )


def _chosen(kinds: Sequence[pl.DataFrame], night: str, at_most: int) -> pl.DataFrame:
    """Of each kind its part, in an order of the night's."""
    # More kinds than are replayed: others each night.
    by_night = sorted(kinds, key=lambda each: _place(" ".join(map(str, each.row(0)[2:])), night))[:at_most]
    taken = parts([each.height for each in by_night], at_most)
    return pl.concat(
        [
            each.with_columns(order=_order(each["request_id"], night)).sort("order").head(count).drop("order")
            for each, count in zip(by_night, taken, strict=True)
        ]
    )


def _order(names: pl.Series, night: str) -> pl.Series:
    return pl.Series("order", [_place(each, night) for each in names], dtype=pl.UInt64)


def _place(name: str, night: str) -> int:
    return int.from_bytes(blake2b(f"{night} {name}".encode(), digest_size=8).digest(), "little")
