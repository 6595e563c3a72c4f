"""The pick-up: from the segments of the prediction log to its Delta table, each exactly once.

The table `prediction_log` of a domain has one row per answer, in partitions by the UTC day on which the request came.
What could not be written stands in `prediction_log_gaps`: one row per segment that counts dropped rows. So the rows of
the one plus the rows of the other are the answers given.

Invariants:

* The name of a segment is an application id of the Delta transaction that appends it, for the table keeps those with
  the rows, all or nothing. A segment that the table knows is not appended again.
* A segment is deleted only after both tables know it. So a pick-up may be killed at any line and run again.
* Of two pick-ups on one machine one waits; of two on one table one loses the commit, looks again and finds it done.

Several segments make one commit: a commit costs some 20 ms and a file, and small files are what makes a table slow. It
refuses to guess: a segment that cannot be read is set aside in `unreadable/`, with the reason, and counted.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from mlplatform.domain.domain import Domain
from mlplatform.errors import RemovedByPolicy, SegmentUnreadable, Unavailable
from mlplatform.features.tombstones import tombstones
from mlplatform.monitoring.prediction_log import SHADOW, decode, frame, log_folder, schema
from mlplatform.monitoring.row_digest import digests
from mlplatform.provenance.files import alone
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import finished, read

logger = logging.getLogger(__name__)

bytes_at_once = 64 << 20
"""Of segments in one commit: some 160,000 answers, which take ten times as much memory as rows."""

_gaps_schema: Mapping[str, pl.DataType] = {"segment": pl.String(), "day": pl.Date(), "rows": pl.Int64()}
_attempts = 16
_of_file = ("model", "model_version", "arm", "source")


@dataclass(frozen=True, kw_only=True)
class Picked:
    """What one pick-up has done."""

    segments: int = 0
    rows: int = 0
    dropped: int = 0
    """Answers that the gateways counted and could not write."""

    unreadable: int = 0
    days: Mapping[str, int] = field(default_factory=dict)
    """ISO day -> rows appended."""


@dataclass(frozen=True)
class _Segment:
    path: Path
    rows: pl.DataFrame
    dropped: int
    damaged: int = 0


def log_table(platform: Platform, domain: Domain) -> str:
    """Address of the table `prediction_log`."""
    return f"{platform.tables}/{domain.name}/prediction_log"


def gaps_table(platform: Platform, domain: Domain) -> str:
    """Address of the table of what could not be logged."""
    return f"{platform.tables}/{domain.name}/prediction_log_gaps"


def logged(platform: Platform, domain: Domain, day: str) -> pl.LazyFrame | None:
    """Rows of one day of the log; None: nothing was ever logged.

    Raises
    ------
    RemovedByPolicy
        There were some, and they were removed.
    """
    uri, options = log_table(platform, domain), log_options(platform)
    if not DeltaTable.is_deltatable(uri, options):
        return None
    table = DeltaTable(uri, storage_options=options)
    # Only where something is missing it is asked why.
    held = table.file_uris(file_pruning_predicate=[("day", "=", day)])
    if not held and (gone := tombstones(platform, domain).get(("answers", day))):
        raise RemovedByPolicy(str(gone))
    return pl.scan_delta(table, storage_options=options).filter(pl.col("day") == date.fromisoformat(day))


def answered(platform: Platform, domain: Domain, day: str) -> pl.LazyFrame | None:
    """Answers of one day of the log: its rows, those of the shadow left out; None: nothing was ever logged."""
    log = logged(platform, domain, day)
    return None if log is None else log.filter(pl.col("arm") != SHADOW)


def answers_on(platform: Platform, domain: Domain, day: str) -> int:
    """How many answers the log has of a day."""
    log = answered(platform, domain, day)
    return 0 if log is None else int(log.select(pl.len()).collect().item())


def rows_by_day(platform: Platform, domain: Domain) -> dict[str, int]:
    """ISO day -> rows of the log, those of the shadow too, from its metadata alone: no file is opened."""
    uri, options = log_table(platform, domain), log_options(platform)
    if not DeltaTable.is_deltatable(uri, options):
        return {}
    files = pl.DataFrame(DeltaTable(uri, storage_options=options).get_add_actions(flatten=True))
    days = files.group_by(pl.col("partition.day").cast(pl.Date)).agg(pl.col("num_records").sum())
    return {day.isoformat(): int(rows) for day, rows in days.sort("partition.day").iter_rows()}


def dropped_on(platform: Platform, domain: Domain, day: str) -> int:
    """Answers of a day that gateways gave and could not write."""
    uri, options = gaps_table(platform, domain), log_options(platform)
    if not DeltaTable.is_deltatable(uri, options):
        return 0
    gaps = pl.scan_delta(uri, storage_options=options).filter(pl.col("day") == date.fromisoformat(day))
    return int(gaps.select(pl.col("rows").sum()).collect().item())


def instants_by_day(platform: Platform, domain: Domain) -> dict[str, tuple[datetime, datetime]]:
    """ISO day -> the first and the last instant that answers of it are as of (`at`), from the table's metadata alone.

    A day of which a file has no statistics is not among them.
    """
    uri, options = log_table(platform, domain), log_options(platform)
    if not DeltaTable.is_deltatable(uri, options):
        return {}
    files = pl.DataFrame(DeltaTable(uri, storage_options=options).get_add_actions(flatten=True))
    if not {"min.at", "max.at"} <= set(files.columns):
        return {}
    days = files.group_by(pl.col("partition.day").cast(pl.Date)).agg(
        pl.col("min.at").min(),
        pl.col("max.at").max(),
        unknown=pl.any_horizontal(pl.col("min.at", "max.at").is_null().any()),
    )
    known = days.filter(~pl.col("unknown")).select("partition.day", pl.col("min.at", "max.at").cast(schema["at"]))
    return {day.isoformat(): (first, last) for day, first, last in known.iter_rows()}


def log_files(platform: Platform, domain: Domain, since: datetime | None = None) -> pl.DataFrame:
    """Files of the log with answers that came since, by default all, from its metadata alone.

    Returns
    -------
    files : `path`, `rows`, when the `first` and the `last` came, the `lowest` and `highest` manifest by name, and the
        first by name of `model`, `model_version`, `arm` and `source`
    """
    uri, options = log_table(platform, domain), log_options(platform)
    columns = {
        "path": pl.String(),
        "rows": pl.Int64(),
        "first": pl.Datetime("us", "UTC"),
        "last": pl.Datetime("us", "UTC"),
        "lowest": pl.String(),
        "highest": pl.String(),
        **dict.fromkeys(_of_file, pl.String()),
    }
    files = pl.DataFrame()
    if DeltaTable.is_deltatable(uri, options):
        files = pl.DataFrame(DeltaTable(uri, storage_options=options).get_add_actions(flatten=True))
    if files.is_empty():
        return pl.DataFrame(schema=columns)
    listed = files.select(
        path=f"{uri}/" + pl.col("path"),
        rows=pl.col("num_records"),
        first=pl.col("min.received"),
        last=pl.col("max.received"),
        lowest=pl.col("min.manifest"),
        highest=pl.col("max.manifest"),
        **{name: pl.col(f"min.{name}") for name in _of_file},
    ).cast(columns)  # type: ignore[arg-type]
    # Statistics keep milliseconds.
    return listed if since is None else listed.filter(pl.col("last") >= since - timedelta(milliseconds=1))


def pick_up(platform: Platform, domain: Domain) -> Picked:
    """Append every finished segment of a domain to its tables, and delete it.

    Raises
    ------
    Unavailable
        A table cannot be written. Nothing is lost: the segments stay.
    """
    folder = log_folder(platform.home, domain.name)
    if not folder.is_dir():
        return Picked()
    rows, dropped, unreadable, segments = 0, 0, 0, 0
    days: Counter[str] = Counter()
    with alone(folder / ".pickup.lock"):
        for paths in _groups(finished(folder)):
            readable = []
            for path in paths:
                try:
                    readable.append(_read(path))
                except SegmentUnreadable as error:
                    _set_aside(path, error)
                    unreadable += 1
            fresh = append(platform, domain, readable)
            for segment in readable:
                if segment.damaged:
                    told = f"{segment.damaged} of its batches are not as they were written; the others are in the table"
                    _set_aside(segment.path, SegmentUnreadable(segment.path.name, told))
                    unreadable += 1
                else:
                    segment.path.unlink()
            segments += len(fresh)
            for segment in fresh:
                rows += segment.rows.height
                dropped += segment.dropped
                for day, count in segment.rows.group_by("day").len().iter_rows():
                    days[day.isoformat()] += count
    return Picked(segments=segments, rows=rows, dropped=dropped, unreadable=unreadable, days=dict(sorted(days.items())))


def append(platform: Platform, domain: Domain, segments: Sequence[_Segment]) -> list[_Segment]:
    """Append what the tables do not know; returns the segments whose answers were appended now."""
    gaps = [
        _Segment(each.path, pl.DataFrame([_gap(each)], schema=_gaps_schema, orient="row"), each.dropped)
        for each in segments
        if each.dropped
    ]
    options = log_options(platform)
    # The gaps first: the rows are what is looked at to tell what is new.
    _append_unknown(gaps_table(platform, domain), gaps, _gaps_schema, [], options)
    day = {"day": pl.Date()}
    return _append_unknown(log_table(platform, domain), segments, {**schema, **day}, ["day"], options)


def _append_unknown(
    uri: str,
    segments: Sequence[_Segment],
    columns: Mapping[str, pl.DataType],
    partition_by: list[str],
    options: dict[str, str] | None,
) -> list[_Segment]:
    """One commit with the segments that the table does not know."""
    if not segments:
        return []
    for attempt in range(_attempts):
        try:
            # One handle for the look and the commit: deltalake compares with the state of the handle, so that whoever
            # has committed one of these segments since makes the commit fail.
            table = DeltaTable.create(
                uri,
                Schema.from_arrow(pl.Schema(columns)),
                mode="ignore",
                partition_by=partition_by,
                configuration={"delta.appendOnly": "true", "delta.setTransactionRetentionDuration": "interval 30 days"},
                storage_options=options,
            )
            unknown = [each for each in segments if table.transaction_version(each.path.stem) is None]
            if unknown:
                known_by = [Transaction(each.path.stem, 1) for each in unknown]
                write_deltalake(
                    table,
                    pl.concat([each.rows for each in unknown]),
                    mode="append",
                    # A table of an earlier version gets the columns that came since.
                    schema_mode="merge",
                    commit_properties=CommitProperties(app_transactions=known_by),
                )
            return unknown
        except (DeltaError, OSError) as error:
            if isinstance(error, CommitFailedError) and attempt + 1 < _attempts:
                continue
            told = " ".join(str(error).split())
            raise Unavailable(
                f"{uri} cannot be appended to ({told[:400]}). Look whether it may be written from here and has room; "
                "the segments stay, and the next pick-up takes them"
            ) from error
    return []


def log_options(platform: Platform) -> dict[str, str] | None:
    """What opens the files of the log, as Polars and Delta Lake take it."""
    return dict(platform.storage_options) if platform.storage_options else None


def _groups(paths: Sequence[Path]) -> list[list[Path]]:
    """Segments of one commit, in their order."""
    groups: list[list[Path]] = []
    left = 0
    for path in paths:
        size = path.stat().st_size
        if size > left or not groups:
            groups.append([])
            left = bytes_at_once
        groups[-1].append(path)
        left -= size
    return groups


def _read(path: Path) -> _Segment:
    contents = read(path)
    try:
        rows = frame([decode(payload) for payload in contents.payloads])
    except (msgspec.DecodeError, ValueError, pl.exceptions.PolarsError) as error:
        raise SegmentUnreadable(path.name, f"its payloads are no answers ({error})") from error
    told = rows.with_columns(digests(rows), day=pl.col("received").dt.date())
    return _Segment(path, told, contents.dropped, contents.damaged)


def _gap(segment: _Segment) -> tuple[str, object, int]:
    seconds = int(segment.path.stem.split("-")[0]) // 1_000_000_000
    return segment.path.stem, pl.from_epoch(pl.Series([seconds])).dt.date().item(), segment.dropped


def _set_aside(path: Path, error: SegmentUnreadable) -> None:
    logger.error("set aside: %s", error)
    place = path.parent / "unreadable"
    place.mkdir(exist_ok=True)
    (place / f"{path.stem}.txt").write_text(f"{error}\n", encoding="utf-8")
    os.rename(path, place / path.name)
