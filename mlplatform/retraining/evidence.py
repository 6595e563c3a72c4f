"""What is known of a model when it is decided whether to train it again.

It comes from listings and small tables, never from a row of facts, for it is asked every half minute. Each kind of
evidence has one function. Where a monitor has written nothing there is no evidence of its kind, and the decision says
so.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.stage import Revision
from mlplatform.features.tables import Tables, partition_end
from mlplatform.monitoring.behaviour.tables import latest_behaviour
from mlplatform.monitoring.findings_table import judgements
from mlplatform.monitoring.outcomes.latest import latest_outcomes
from mlplatform.monitoring.outcomes.tables import estimates_table
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.retraining.performance import JudgedDay, recalibration_gain, rise, unexplained_rise
from mlplatform.retraining.policy import Evidence
from mlplatform.training.recipe import Recipe

days_of_findings = 7
"""Newest judged days whose findings count: what is over for a week is over."""


def gather(
    platform: Platform, domain: Domain, model: ModelSpec, newest: Recipe | None, trained_at: datetime | None
) -> Evidence:
    """The evidence of now.

    Parameters
    ----------
    newest : the recipe that was trained by last, whatever became of it; None: none yet
    trained_at : when a training was last decided; None: never
    """
    now = platform.clock()
    current = Tables(platform, domain).facts(domain.requests.facts).current()
    fresh = [each for day, each in current.items() if newest is None or newest.facts.get(day) != each.number]
    found = Evidence(
        new_rows=sum(each.rows for each in fresh),
        labels=sum(each.rows for each in fresh if partition_end(each.partition) + model.label.delay <= now),
        newest=newest.key if newest else "",
        age_days=None if newest is None else age(newest, current),
        since_days=None if trained_at is None else (now - trained_at) / timedelta(days=1),
    )
    return found if newest is None else _of_monitors(platform, domain, model, newest, found)


def age(newest: Recipe, current: Mapping[str, Revision]) -> float:
    """Days of data from the as-of day of a recipe to the end of the newest facts."""
    end = date.fromisoformat(max(current, default=newest.as_of)) + timedelta(days=1)
    return float(max(0, (end - date.fromisoformat(newest.as_of)).days))


def _of_monitors(platform: Platform, domain: Domain, model: ModelSpec, newest: Recipe, found: Evidence) -> Evidence:
    """With what the monitors say of the model that serves."""
    champion = Ledger(platform).champion(f"{domain.name}/{model.name}")
    if champion is None:
        return replace(found, missing={"monitors": "no model of it serves"})
    drift = _drift(platform, domain, model, champion, since=newest.as_of)
    estimated = _estimated_rise(platform, domain, model, champion)
    days, evaluation = _judged_days(platform, domain, model, champion)
    true = gain = None
    if evaluation is not None:
        true = unexplained_rise(model.gate.metric, days, evaluation)
        gain = recalibration_gain(days, evaluation) if model.gate.metric == "log_loss" else None
    missing = {
        "drift": "no day since then was judged" if drift is None else "",
        "outcomes": f"{len(days)} days of them are mature and were judged" if true is None else "",
        "estimates": "its behaviour tells none" if estimated is None and true is None else "",
    }
    return replace(
        found,
        drift=drift,
        true_rise=true,
        estimated_rise=estimated,
        recalibration_gain=gain,
        missing={kind: why for kind, why in missing.items() if why},
    )


def _drift(platform: Platform, domain: Domain, model: ModelSpec, champion: str, *, since: str) -> float | None:
    """Of the newest judged days since a recipe, the worst harmful drift.

    Faults of the data (`null_rate`, `range` …) do not count: a training would only learn them.
    """
    judged = judgements(platform, domain, monitors={"data_quality"}, since=since)
    if not judged:
        return None
    newest = sorted({each.day for each in judged})[-days_of_findings:]
    harm = [
        finding.figures.get("harm", 0.0)
        for each in judged
        for finding in each.findings
        if each.day in newest
        and (finding.rule, finding.subject) == ("drift", f"{domain.name}/{model.name}")
        and finding.harmful
        # What an earlier model suffered from says nothing of the one that serves.
        and finding.manifest == champion
    ]
    return max(harm, default=0.0)


def _judged_days(
    platform: Platform, domain: Domain, model: ModelSpec, champion: str
) -> tuple[list[JudgedDay], float | None]:
    """How the champion did on its mature days, as many as its evaluation had, and the metric there."""
    days = model.split.evaluation // timedelta(days=1)
    outcomes = [
        each
        for each in latest_outcomes(platform, domain, days=days + model.label.delay // timedelta(days=1) + 1)
        if each.mature and (each.model, each.manifest) == (model.name, champion) and each.figure.point is not None
    ]
    expected = [each.expected for each in outcomes if each.expected is not None]
    table = estimates_table(platform, domain)
    there = list(table.current({each.day for each in outcomes}))
    rows = table.read(there, provenance=True) if there else None
    told = (
        {}
        if rows is None
        else {
            (row["_partition"], row["metric"]): row
            for row in rows.iter_rows(named=True)
            if (row["model"], row["manifest"]) == (model.name, champion)
        }
    )
    judged = []
    for each in outcomes:
        estimate, rate = told.get((each.day, model.gate.metric)), told.get((each.day, "positive_rate"))
        judged.append(
            JudgedDay(
                rows=each.rows,
                truth=each.figure.point or 0.0,
                expected=None if estimate is None else estimate["estimated"],
                rate=None if rate is None else rate["truth"],
                mean_score=None if rate is None else rate["estimated"],
            )
        )
    return judged, expected[-1] if expected else None


def _estimated_rise(platform: Platform, domain: Domain, model: ModelSpec, champion: str) -> float | None:
    """By what share the metric is estimated to be worse on the newest judged day than it was on the evaluation."""
    for behaviours in latest_behaviour(platform, domain).values():
        for each in behaviours:
            if (each.model, each.manifest) == (model.name, champion) and not each.is_shadow:
                now = each.figure("estimated", model.gate.metric)
                then = each.figure("estimated_at_evaluation", model.gate.metric)
                if now is not None and then is not None:
                    return rise(model.gate.metric, now.value, then.value)
    return None
