"""Rows of the prediction log since a time: those in the table, and those that gateways are writing this moment.

A segment is read while it is still open, so that a look sees what was answered a second ago. What is in both places, as
during a pick-up, may come twice, and nothing is missed. Only the columns that are asked for are read, of the files that
have rows of the time.
"""

import logging
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError, SegmentUnreadable
from mlplatform.features.integrity import unreadable
from mlplatform.monitoring.pickup import log_files, log_options
from mlplatform.monitoring.prediction_log import Batch, decode, frame, log_folder, schema
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import read

logger = logging.getLogger(__name__)

rows_at_most = 100_000
"""Of what was not picked up yet, the newest: a second's worth of reading. More than that waits only where nobody picks
up, which has its own alert."""


def rows_since(
    platform: Platform, domain: Domain, since: datetime, columns: Sequence[str], manifests: Collection[str]
) -> pl.DataFrame:
    """Rows of some manifests that came since, by time.

    Parameters
    ----------
    columns : of the log; null where a row is older than the column
    manifests : digests
    """
    wanted = list(dict.fromkeys(["request_id", "received", *columns]))
    # First: what is picked up in between is met twice, and not missed.
    parts = [each.select(wanted) for each in not_picked_up(platform, domain, since, manifests)]
    paths = log_files(platform, domain, since).get_column("path").to_list()
    if paths:
        came = (pl.col("received") >= since) & pl.col("manifest").is_in(list(manifests))
        parts.append(stored(platform, paths).filter(came).select(wanted).collect())
    rows = pl.concat([pl.DataFrame(schema={name: schema[name] for name in wanted}), *parts])
    return rows.sort("received", "request_id")


def stored(platform: Platform, paths: Sequence[str], *, file: str | None = None) -> pl.LazyFrame:
    """Files of the table, of whatever version: a column, or a field of a view, that came later is null.

    Parameters
    ----------
    file : name of a column that tells in which file a row lies; None: there is none
    """
    return pl.scan_parquet(
        list(paths),
        schema=schema,
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=pl.ScanCastOptions(missing_struct_fields="insert", extra_struct_fields="ignore"),
        hive_partitioning=False,
        include_file_paths=file,
        storage_options=log_options(platform),
    )


def collected(platform: Platform, rows: pl.LazyFrame, paths: Sequence[str]) -> pl.DataFrame:
    """What is asked of files of the table.

    Raises
    ------
    DataError
        A file is gone or damaged; the message names it.
    """
    try:
        return rows.collect()
    except unreadable:
        for path in paths:
            try:
                stored(platform, [path]).collect()
            except unreadable as error:
                told = " ".join(str(error).split()) or type(error).__name__
                raise DataError(
                    f"the file {path} of the prediction log cannot be read ({told[:200]}). Restore it from a copy; no "
                    "answer that lies in it can be given again without it"
                ) from error
        raise


def not_picked_up(
    platform: Platform,
    domain: Domain,
    since: datetime | None = None,
    manifests: Collection[str] | None = None,
    *,
    request_id: str | None = None,
    at_most: int = rows_at_most,
) -> list[pl.DataFrame]:
    """Rows of the segments that were not picked up yet, the newest segments first.

    Parameters
    ----------
    since : when they came; None: whenever
    manifests : digests; None: all
    request_id : of one request, or of many rows that came as one; None: all
    at_most : rows, or a segment's more
    """
    folder = log_folder(platform.home, domain.name)
    found: list[pl.DataFrame] = []
    rows = 0
    for path in sorted([*folder.glob("*.open"), *folder.glob("*.segment")], reverse=True):
        if rows >= at_most:
            break
        try:
            contents = read(path)
            if contents.damaged:
                logger.warning("%s: %d batches of answers in it cannot be read", path.name, contents.damaged)
            batches = [decode(payload) for payload in contents.payloads]
            chosen = [
                each
                for each in batches
                # To look for an id costs little, to make rows of a batch a lot.
                if (manifests is None or each.manifest in manifests) and (request_id is None or _has(each, request_id))
            ]
            came = frame(chosen)
            if since is not None:
                came = came.filter(pl.col("received") >= since)
            if request_id is not None:
                came = came.filter(of_request(request_id))
        except FileNotFoundError:
            continue  # finished or picked up this moment: the next look finds it under its other name
        except (SegmentUnreadable, msgspec.DecodeError, ValueError, pl.exceptions.PolarsError) as error:
            # The pick-up sets it aside and tells of it.
            logger.warning("%s is not looked at: %s", path.name, error)
            continue
        found.append(came)
        rows += came.height
    return found


def of_request(request_id: str) -> pl.Expr:
    """Rows of one request; of many rows that came as one, each is called by the id, a colon and its place."""
    name = pl.col("request_id")
    return (name == request_id) | name.str.starts_with(f"{request_id}:")


def _has(batch: Batch, request_id: str) -> bool:
    return any(each == request_id or each.startswith(f"{request_id}:") for each in batch.request_id)
