"""What can be told of the last minutes: views that cannot be read, fallbacks, lateness, breakers, rollbacks, silence.

The same rules as those of whole days, where they need no day to be sure, so that both mean one alert. A model with too
few answers in the window is not judged: that ends no alert either.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.alerts.alert import Look
from mlplatform.monitoring.alerts.nulls import NeverMissing, many, missing
from mlplatform.monitoring.alerts.recent import rows_at_most
from mlplatform.monitoring.behaviour.behaviour import behaviour_of
from mlplatform.monitoring.behaviour.day import transitions_between
from mlplatform.monitoring.behaviour.rules import (
    breaker_findings,
    days_steady,
    findings_of,
    no_traffic,
    opened,
    weeks_steady,
    wilson,
)
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.log_rows import stored
from mlplatform.monitoring.pickup import log_files
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger, rolled_back
from mlplatform.registry.manifest import SHORT_DIGITS

data_window = timedelta(minutes=5)
"""Of layer 1, which is to be heard of within five minutes."""

behaviour_window = timedelta(minutes=15)
"""Of layer 2."""

days_back = max(days_steady, 7 * weeks_steady)


def data_looks(domain: Domain, answers: pl.DataFrame, now: datetime, never_missing: NeverMissing) -> Iterator[Look]:
    """Of each model in the last minutes: views that could not be read, features that are missing and never were.

    Parameters
    ----------
    answers : of the last minutes or more, as the log has them
    """
    since = now - data_window
    for model in domain.models:
        of_model = (pl.col("model") == model.name) & (pl.col("received") >= since)
        rows = answers.lazy().filter(of_model).select("manifest", "views", "features").collect()
        if rows.height < model.monitoring.min_rows.value:
            continue
        subject, day = f"{domain.name}/{model.name}", f"{now:%Y-%m-%d}"
        findings = [*_unread(rows, subject, day, model.monitoring.max_fallback_share.value)]
        for (manifest,), own in rows.partition_by("manifest", as_dict=True).items():
            known = never_missing.features(str(manifest))
            if known is not None and own.height >= model.monitoring.min_rows.value:
                findings += _missing(own, subject, day, str(manifest), known)
        yield Look(monitor=f"data of {subject}", since=since, until=now, findings=tuple(findings))


def _unread(rows: pl.DataFrame, subject: str, day: str, bound: float) -> Iterator[Finding]:
    """Views that the online store could not give."""
    of_view = pl.element().struct.field("view")
    unread = rows.get_column("views").list.eval(
        pl.when(pl.element().struct.field("status") == "unavailable").then(of_view).drop_nulls()
    )
    hit = int((unread.list.len() > 0).sum())
    if wilson(hit, rows.height)[0] <= bound:
        return
    views = unread.explode(empty_as_null=False, keep_nulls=False).value_counts(sort=True).get_column("views").to_list()
    yield Finding(
        layer="data_quality",
        rule="unavailable_views",
        subject=subject,
        day=day,
        manifest=str(rows.get_column("manifest")[-1]),
        summary=f"{hit / rows.height:.1%} of {rows.height:,} answers of the last {_minutes(data_window)} were given "
        f"without {', '.join(views)}: the online store could not be read. Look at it with `mlplatform doctor`",
        figures={"value": hit / rows.height, "bound": bound, "answers": float(rows.height)},
        features=tuple(views),
    )


def _missing(
    rows: pl.DataFrame, subject: str, day: str, manifest: str, known: tuple[tuple[str, ...], npt.NDArray[np.bool_]]
) -> Iterator[Finding]:
    """Features that are missing and never were."""
    found = missing(rows.get_column("features"), *known)
    if not found:
        return
    worst = next(iter(found.values()))
    told = ", ".join(f"{name} in {share:.0%}" for name, share in list(found.items())[:5])
    yield Finding(
        layer="data_quality",
        rule="null_rate",
        subject=subject,
        day=day,
        manifest=manifest,
        summary=f"features that were never missing in training are missing from the answers of the last "
        f"{_minutes(data_window)}: {told}. Look at what the source sends, and at the runs of the last hours",
        figures={"value": worst, "bound": many, "answers": float(rows.height)},
        features=tuple(found),
    )


def behaviour_looks(domain: Domain, answers: pl.DataFrame, now: datetime) -> Iterator[Look]:
    """Fallbacks, lateness and broken scores of each model in the last quarter of an hour."""
    since, day = now - behaviour_window, f"{now:%Y-%m-%d}"
    models = {model.name: model for model in domain.models}
    rows = answers.filter((pl.col("received") >= since) & pl.col("model").is_in(list(models)))
    found: dict[str, list[Finding]] = {}
    for each in behaviour_of(rows, models, lambda *_: "a window within a day"):
        spec = models[each.model]
        if each.count("answers") >= spec.monitoring.min_rows.value:
            findings = findings_of(domain, spec, day, each, None, whole_day=False)
            found.setdefault(each.model, []).extend(findings)
    for model, findings in found.items():
        yield Look(monitor=f"behaviour of {domain.name}/{model}", since=since, until=now, findings=tuple(findings))


def breaker_looks(platform: Platform, domain: Domain, now: datetime) -> Iterator[Look]:
    """Breakers that opened in the last quarter of an hour."""
    since = now - behaviour_window
    told = transitions_between(platform, domain, since, now)
    findings = tuple(breaker_findings(f"{now:%Y-%m-%d}", opened(told)))
    yield Look(monitor=f"breakers of {domain.name}", since=since, until=now, findings=findings)


def rollback_looks(platform: Platform, domain: Domain, now: datetime) -> Iterator[Look]:
    """Versions that were sent back in the last quarter of an hour, by whomever."""
    since, ledger = now - behaviour_window, Ledger(platform)
    for model in domain.models:
        subject = f"{domain.name}/{model.name}"
        sent = [(each, rolled_back(each)) for each in ledger.entries(subject) if since <= each.at <= now]
        findings = tuple(
            Finding(
                layer="model_behaviour",
                rule="rolled_back",
                subject=subject,
                manifest=manifest,
                day=f"{now:%Y-%m-%d}",
                summary=f"{manifest[:SHORT_DIGITS]} was sent back by {each.actor}: {each.reason}. `mlplatform rollout "
                f"history {subject}` shows what was looked at",
                figures={"value": 1.0, "bound": 0.0},
            )
            for each, manifest in sent
            if manifest is not None
        )
        yield Look(monitor=f"rollbacks of {subject}", since=since, until=now, findings=findings[-1:])


def traffic_looks(platform: Platform, domain: Domain, answers: pl.DataFrame, now: datetime) -> Iterator[Look]:
    """Models that nobody asked in the last quarter of an hour, where there always was somebody at that time."""
    since = now - behaviour_window
    asked = set(answers.filter(pl.col("received") >= since).get_column("model"))
    if answers.height >= rows_at_most:
        # The newest are of a shorter time, in which one of several models may well have had nobody.
        return
    silent = [model.name for model in domain.models if model.name not in asked]
    before = answers_in_the_stretch(platform, domain, since, now) if silent else {}
    for model in domain.models:
        finding = None
        if model.name in silent:
            counts = {ago: models.get(model.name, 0.0) for ago, models in before.items()}
            stretch = f"in the last {_minutes(behaviour_window)}"
            finding = no_traffic(domain, model.name, f"{now:%Y-%m-%d}", counts, stretch=stretch)
        yield Look(
            monitor=f"traffic of {domain.name}/{model.name}",
            since=since,
            until=now,
            findings=(finding,) if finding else (),
        )


def answers_in_the_stretch(
    platform: Platform, domain: Domain, since: datetime, until: datetime
) -> Mapping[int, Mapping[str, float]]:
    """How many days ago -> model -> answers in the same stretch of that day, for the days that the log has.

    Only files with answers of such a stretch are opened.
    """
    listed = log_files(platform, domain, since - timedelta(days=days_back))
    if listed.is_empty():
        return {}
    begun: datetime = listed.select(pl.col("first").min()).item()
    counts: dict[int, dict[str, float]] = {}
    for ago in range(1, min(days_back, (until - begun).days) + 1):
        start, end = since - timedelta(days=ago), until - timedelta(days=ago)
        paths = listed.filter((pl.col("last") >= start) & (pl.col("first") < end)).get_column("path").to_list()
        counts[ago] = {}
        if paths:
            came = pl.col("received").is_between(start, end, closed="left")
            rows = stored(platform, paths).filter(came, pl.col("arm") != SHADOW).group_by("model").len()
            counts[ago] = {str(model): float(number) for model, number in rows.collect().iter_rows()}
    return counts


def _minutes(window: timedelta) -> str:
    return f"{window // timedelta(minutes=1)} minutes"
