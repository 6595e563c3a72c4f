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
from mlplatform.errors import SegmentUnreadable
from mlplatform.monitoring.pickup import log_files, log_options
from mlplatform.monitoring.prediction_log import decode, frame, log_folder, schema
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


def stored(platform: Platform, paths: Sequence[str]) -> pl.LazyFrame:
    """Files of the table, of whatever version: a column that came later is null."""
    return pl.scan_parquet(
        list(paths),
        schema=schema,
        missing_columns="insert",
        extra_columns="ignore",
        hive_partitioning=False,
        storage_options=log_options(platform),
    )


def not_picked_up(
    platform: Platform,
    domain: Domain,
    since: datetime,
    manifests: Collection[str] | None = None,
    *,
    at_most: int = rows_at_most,
) -> list[pl.DataFrame]:
    """Rows of the segments that were not picked up yet, the newest segments first.

    Parameters
    ----------
    manifests : digests; None: all
    at_most : rows, or a segment's more
    """
    folder = log_folder(platform.home, domain.name)
    found: list[pl.DataFrame] = []
    rows = 0
    for path in sorted([*folder.glob("*.open"), *folder.glob("*.segment")], reverse=True):
        if rows >= at_most:
            break
        try:
            batches = [decode(payload) for payload in read(path).payloads]
            chosen = [each for each in batches if manifests is None or each.manifest in manifests]
            came = frame(chosen).filter(pl.col("received") >= since)
        except FileNotFoundError:
            continue  # finished or picked up this moment: the next look finds it under its other name
        except (SegmentUnreadable, msgspec.DecodeError, ValueError, pl.exceptions.PolarsError) as error:
            # The pick-up sets it aside and tells of it.
            logger.warning("%s is not looked at: %s", path.name, error)
            continue
        found.append(came)
        rows += came.height
    return found
