"""The answers of the last minutes: those in the table, and those that gateways are writing this moment.

A segment is read while it is still open, so that a look sees what was answered a second ago. What is in both places, as
during a pick-up, counts once.
"""

import logging
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
"""The newest; of a minute's work at full speed this is a part, which tells a share to a third of a point."""

columns = tuple(name for name in schema if name not in ("domain", "device", "gateway", "key", "request"))
"""Of the log: what a look of some minutes needs."""


def recent_answers(platform: Platform, domain: Domain, since: datetime) -> pl.DataFrame:
    """Answers that came since, by time, `columns` of the log; of very many, the newest."""
    parts = [each.select(columns) for each in _written(platform, domain, since)]
    listed = log_files(platform, domain, since).sort("last", descending=True)
    enough = listed.filter(pl.col("rows").cum_sum() - pl.col("rows") < rows_at_most)
    if enough.height:
        options = log_options(platform)
        stored = pl.scan_parquet(enough.get_column("path").to_list(), hive_partitioning=False, storage_options=options)
        parts.append(stored.filter(pl.col("received") >= since).select(columns).collect())
    rows = pl.concat([pl.DataFrame(schema={name: schema[name] for name in columns}), *parts])
    rows = rows.unique(["request_id", "model", "arm"], keep="any")
    return rows.sort("received", "request_id").tail(rows_at_most)


def _written(platform: Platform, domain: Domain, since: datetime) -> list[pl.DataFrame]:
    """Rows of the segments that were not picked up yet, the newest segments first."""
    folder = log_folder(platform.home, domain.name)
    found: list[pl.DataFrame] = []
    rows = 0
    for path in sorted([*folder.glob("*.open"), *folder.glob("*.segment")], reverse=True):
        if rows >= rows_at_most:
            break
        try:
            payloads = read(path).payloads
            batches = frame([decode(payload) for payload in payloads]).filter(pl.col("received") >= since)
        except FileNotFoundError:
            continue  # finished or picked up this moment: the next look finds it under its other name
        except (SegmentUnreadable, msgspec.DecodeError, ValueError, pl.exceptions.PolarsError) as error:
            # The pick-up sets it aside and tells of it.
            logger.warning("%s is not looked at: %s", path.name, error)
            continue
        found.append(batches)
        rows += batches.height
    return found
