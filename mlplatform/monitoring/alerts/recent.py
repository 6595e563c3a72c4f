"""The answers of the last minutes: those in the table, and those that gateways are writing this moment.

What a shadow has scored is nobody's answer, and is not among them.
"""

from datetime import datetime

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.log_rows import not_picked_up, stored
from mlplatform.monitoring.pickup import log_files
from mlplatform.monitoring.prediction_log import SHADOW, schema
from mlplatform.provenance.platform import Platform

rows_at_most = 100_000
"""The newest; of a minute's work at full speed this is a part, which tells a share to a third of a point."""

rows_read = 3 * rows_at_most
"""Each answer may have a row of the shadow, a moment later than its own: so many rows hold so many answers for sure."""

_unasked = ("domain", "device", "gateway", "key", "request", "computing", "digest")

columns = tuple(name for name in schema if name not in _unasked)
"""Of the log: what a look of some minutes needs."""


def recent_answers(platform: Platform, domain: Domain, since: datetime) -> pl.DataFrame:
    """Answers that came since, by time, `columns` of the log; of very many, the newest."""
    answered = pl.col("arm") != SHADOW
    parts = [
        each.filter(answered).select(columns) for each in not_picked_up(platform, domain, since, at_most=rows_read)
    ]
    listed = log_files(platform, domain, since).sort("last", descending=True)
    enough = listed.filter(pl.col("rows").cum_sum() - pl.col("rows") < rows_read).get_column("path").to_list()
    if enough:
        parts.append(stored(platform, enough).filter(answered, pl.col("received") >= since).select(columns).collect())
    rows = pl.concat([pl.DataFrame(schema={name: schema[name] for name in columns}), *parts])
    rows = rows.unique(["request_id", "model", "arm"], keep="any")
    return rows.sort("received", "request_id").tail(rows_at_most)
