"""Labels of a day's answers: the facts that have come of the cases that were asked about.

Where a case has several facts the newest by event time counts, then by when it was known; that they contradict each
other is counted. A label is dated by the first revision of the facts that had it: a correction of other rows of the day
does not make it late. Where the revision before that was removed by policy, it may have had it too: then the label has
no date, never a later one.

Which partitions hold the facts of a day's requests? Those of the label's delay, by the calendar; and those in which
facts of that day were met, for whatever is late beyond it: each partition is looked through once, when it comes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.stage import Draft, Revision, Stage, Written
from mlplatform.features.tables import Tables, available_at, day_range, partition_end
from mlplatform.monitoring.outcomes.tables import fact_day_schema, fact_days_table
from mlplatform.monitoring.pickup import instants_by_day
from mlplatform.provenance.platform import Platform

partitions_at_once = 10
"""Partitions that one run looks through beyond those of its day: a monitor that is new to a long history catches up
over some runs."""

Instants = Mapping[str, tuple[datetime, datetime]]
"""Day -> the first and the last instant that its answers are as of."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of the requests of a day."""

    cases: pl.DataFrame
    """One row per case that was asked about and has a fact: the identity, by model `label:<model>` and
    `contradicted:<model>`, and `known_at`, `fact_partition`, `fact_revision`; `known_at` and `fact_revision` are null
    where the revision that would tell was removed."""

    seen: int
    """Facts whose request was, or would have been, of the day."""

    asked: int
    """Those of them that somebody asked about."""


def mature_at(domain: Domain, model: ModelSpec, last: datetime) -> datetime:
    """When the labels of requests up to an instant can be in: known, and published with the day they are of."""
    return available_at(domain, (last + model.label.delay).date().isoformat())


def instants(platform: Platform, domain: Domain, days: Sequence[str]) -> dict[str, tuple[datetime, datetime]]:
    """Of which instants the answers of some days are; the whole day where the log does not tell."""
    told = instants_by_day(platform, domain)
    return {
        day: told.get(day, (partition_end(day) - timedelta(days=1), partition_end(day) - timedelta(microseconds=1)))
        for day in days
    }


def partitions_of(domain: Domain, between: tuple[datetime, datetime]) -> list[str]:
    """Partitions of the facts in which the labels of requests between two instants are to be expected."""
    delay = max(model.label.delay for model in domain.models)
    return day_range(between[0].date().isoformat(), (between[1] + delay).date().isoformat())


def late_partitions(platform: Platform, domain: Domain) -> dict[str, set[str]]:
    """Day -> partitions in which facts of its requests were met."""
    met = fact_days_table(platform, domain).read(columns=["day"], provenance=True)
    found: dict[str, set[str]] = {}
    for day, partition in met.select("day", "_partition").iter_rows():
        found.setdefault(day, set()).add(partition)
    return found


def facts_of(
    platform: Platform,
    domain: Domain,
    models: Sequence[ModelSpec],
    asked: pl.DataFrame,
    partitions: Mapping[str, Revision],
    days: Sequence[str],
) -> Facts:
    """Find the facts of the cases that were asked about.

    Parameters
    ----------
    asked : (n, identity) cases, none twice
    partitions : revision of each partition to look through
    days : ISO days on which the requests were asked, for counting facts that nobody asked about
    """
    store = Tables(platform, domain).facts(domain.requests.facts)
    identity = list(domain.requests.identity)
    labels = [f"label:{model.name}" for model in models]
    parts, seen, answered = [], 0, 0
    for partition, revision in sorted(partitions.items()):
        told = _told(domain, models, store.read(numbers={partition: revision.number}, provenance=True))
        of_days = told.filter(pl.col("at").dt.date().cast(pl.String).is_in(list(days)))
        seen += of_days.height
        answered += of_days.join(asked, on=identity, how="semi").height
        wanted = told.join(asked, on=identity, how="semi")
        if revision.number > 1 and wanted.height:
            wanted = _dated(domain, models, store, revision, wanted)
        parts.append(wanted)
    none = _told(domain, models, pl.DataFrame(schema={**store.schema, **_provenance}))
    known_at = pl.when(pl.col("_known_at").is_not_null()).then(pl.max_horizontal("available_at", "_known_at"))
    every = pl.concat([none, *parts]).with_columns(known_at=known_at)
    newest = every.sort("event_time", "known_at", "_revision", maintain_order=True)
    cases = newest.group_by(identity, maintain_order=True).agg(
        *(pl.col(name).last() for name in labels),
        *(
            (pl.col(f"label:{model.name}").drop_nulls().n_unique() > 1).alias(f"contradicted:{model.name}")
            for model in models
        ),
        pl.col("known_at").last(),
        fact_partition=pl.col("_partition").last(),
        fact_revision=pl.col("_revision").last(),
    )
    return Facts(cases=cases, seen=seen, asked=answered)


_provenance = {"_partition": pl.String(), "_revision": pl.Int32(), "_known_at": pl.Datetime("us", "UTC")}


def _told(domain: Domain, models: Sequence[ModelSpec], facts: pl.DataFrame) -> pl.DataFrame:
    """Facts as requests with labels; those that were never a request are left out."""
    asked = domain.requests.of_facts(facts)
    labels = facts.select(model.label.value().cast(pl.Float64).alias(f"label:{model.name}") for model in models)
    return (
        asked.select(*domain.requests.identity, "at")
        .hstack(labels.with_columns(pl.all().fill_nan(None)))
        .hstack(facts.select("event_time", "available_at", *_provenance))
        .filter(pl.col("at").is_not_null())
    )


def _dated(
    domain: Domain, models: Sequence[ModelSpec], store: Stage, revision: Revision, wanted: pl.DataFrame
) -> pl.DataFrame:
    """The same, each dated by the first revision that said so; without a date where that cannot be told any more."""
    same = [*domain.requests.identity, *(f"label:{model.name}" for model in models), "event_time"]
    history = store.history([revision.partition]).filter(pl.col("_revision") <= revision.number)
    first = _told(domain, models, history).group_by(same).agg(pl.col("_revision").min(), pl.col("_known_at").min())
    after_removed = [each.number + 1 for each in store.revisions([revision.partition]) if each.removed]
    told = pl.when(~pl.col("_revision").is_in(after_removed))
    first = first.with_columns(told.then("_revision").alias("_revision"), told.then("_known_at").alias("_known_at"))
    dated = wanted.drop("_revision", "_known_at").join(first, on=same, how="left", nulls_equal=True)
    return dated.select(wanted.columns)


def look_through(
    platform: Platform, domain: Domain, current: Mapping[str, Revision], since: str, *, run_id: str
) -> int:
    """Note of which days the facts of new partitions are; how many partitions were looked through.

    Parameters
    ----------
    current : revision of each partition of the facts
    since : ISO day before which no label is to be expected, since nobody asked
    """
    table = fact_days_table(platform, domain)
    noted = {
        row[0]: row[1] for row in table.read(columns=["revision"], provenance=True)["_partition", "revision"].rows()
    }
    unread = [
        partition for partition, each in current.items() if partition >= since and noted.get(partition) != each.number
    ]
    if not unread:
        return 0
    chosen = sorted(unread, reverse=True)[:partitions_at_once]
    store = Tables(platform, domain).facts(domain.requests.facts)
    drafts = {}
    for partition in chosen:
        number = current[partition].number
        at = domain.requests.of_facts(store.read(numbers={partition: number})).get_column("at").drop_nulls()
        days = at.dt.date().cast(pl.String).alias("day").to_frame().group_by("day").agg(facts=pl.len())
        # A partition without requests is noted too, or it would be looked through for ever.
        days = days if days.height else pl.DataFrame({"day": [""], "facts": [0]})
        rows = days.with_columns(revision=pl.lit(number)).select(
            pl.col(name).cast(dtype) for name, dtype in fact_day_schema.items()
        )
        drafts[partition] = Draft(rows=rows)
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    table.append(drafts, written)
    return len(chosen)
