"""Where monitors keep what they say: tables of a domain with a partition per day.

Append-only: a day that is judged again is a new revision, and what was found before stays to be read.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.features.stage import Stage
from mlplatform.provenance.platform import Platform


def monitor_table(
    platform: Platform,
    domain: Domain,
    name: str,
    schema: Mapping[str, pl.DataType],
    *,
    sort_by: Sequence[str] | None = None,
) -> Stage:
    """A table of a domain's monitors.

    Parameters
    ----------
    sort_by : columns that order its rows; None: all
    """
    return Stage(
        platform.table(domain.name, "monitoring", name),
        schema,
        name=f"{domain.name}/monitoring/{name}",
        sort_by=list(schema) if sort_by is None else sort_by,
        storage_options=platform.storage_options,
    )
