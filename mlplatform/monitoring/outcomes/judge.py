"""What is wrong with the outcomes of a mature day: its figures, and those of its week, against the model's evaluation.

A figure is held against two things, and must fail both: against what days and weeks of the evaluation vary by chance
(`bounds`), and against the margin that the domain declares, below which a change is no harm. A log loss must fail a
third time, with what of it lies above what the scores expect: a season of harder cases is no worse model. The chance of
a false alarm is set for the domain as a whole and shared by everything that is looked at on the day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.outcomes.bounds import Expected, expected
from mlplatform.monitoring.outcomes.tally import ASSOCIATION, BIAS, BUSINESS, EXCESS, place
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.training.metrics import DIRECTIONS

alarms_per_week = 0.1
"""False alarms of a domain's outcomes in a quiet week, were all that is looked at independent. It is not (a week is
looked at seven times, its figures are of the same rows), and margins are to be passed too: there are far fewer."""

segments_named = 3


History = tuple[tuple[float, ...], tuple[int, ...], tuple[float, ...]]
"""Of each evaluation day the figure, rows and spread."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A figure that is held against the evaluation."""

    rule: str
    model: ModelSpec
    manifest: str
    arm: str
    metric: str
    days: int
    """Days it is of: one, or those of the rolling week."""

    segment: str
    value: str
    rows: int
    figure: float
    """Of a segment: by how much it is above the figure of all answers, whose weather it shares."""

    shown: float
    """The figure itself."""

    before: float
    """The figure itself, on the days of the evaluation."""

    history: History
    margin: float
    worse: tuple[int, ...]
    """1: larger is worse, -1: smaller is; both where either is."""

    excess: tuple[float, History] | None = None
    """Of a log loss, what of it lies above what the scores expect, likewise."""

    def judged(self, chance: float) -> "Verdict | None":
        """Whether it is worse than chance explains; None: too few evaluation days."""
        told = expected(
            *self.history,
            days=self.days,
            of_rows=self.rows,
            chance=chance / len(self.worse),
            ratio=self.metric in DIRECTIONS and not self.segment,
        )
        if told is None:
            return None
        for sign in self.worse:
            bound = told.high if sign > 0 else told.low
            by = sign * (self.figure - told.figure)
            if (
                sign * (self.figure - bound) > 0
                and by > self.margin
                and sign * (self.shown - self.before) > self.margin
                and not self._was_to_be_expected(chance / len(self.worse))
            ):
                return Verdict(watched=self, expected=told, bound=bound, harmful=True)
        end = told.low if self.worse == (-1,) else told.high
        return Verdict(watched=self, expected=told, bound=end, harmful=False)

    def _was_to_be_expected(self, chance: float) -> bool:
        """Of the scores themselves: their cases were that hard."""
        if self.excess is None:
            return False
        figure, history = self.excess
        told = expected(*history, days=self.days, of_rows=self.rows, chance=chance)
        return told is not None and figure <= told.high


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure beside what was expected of it."""

    watched: Watched
    expected: Expected
    bound: float
    harmful: bool


def watched(model: ModelSpec, told: pl.DataFrame, days: int, reference: Mapping[str, pl.DataFrame]) -> list[Watched]:
    """What can be held against the evaluation: of every arm that answers, where there are labels enough.

    Parameters
    ----------
    told : figures of a day, or of a week, as `figure_schema`
    days : how many days they are of
    reference : manifest -> figures of its evaluation days, as `reference_schema`
    """
    found = []
    own = told.filter(pl.col("source") == "model", pl.col("arm") != SHADOW)
    for (manifest, arm), figures in own.partition_by(["manifest", "arm"], as_dict=True, maintain_order=True).items():
        if manifest in reference:
            of = {tuple(row[name] for name in place[3:]): row for row in figures.iter_rows(named=True)}
            overall = [
                _overall(model, str(manifest), str(arm), days, row, of.get(("", "", EXCESS)), reference[manifest])
                for row in of.values()
                if not row["segment"] and row["rows"] >= model.monitoring.min_rows.value
            ]
            found += [each for each in overall if each]
            found += _segments(model, str(manifest), str(arm), days, of, reference[manifest])
    return found


def _overall(
    model: ModelSpec,
    manifest: str,
    arm: str,
    days: int,
    row: Mapping[str, object],
    excess: Mapping[str, object] | None,
    reference: pl.DataFrame,
) -> Watched | None:
    metric, figure, rows = str(row["metric"]), row["figure"], row["rows"]
    business = {BUSINESS + each.name: each.better for each in model.monitoring.business}
    margin = 0.0
    worse: tuple[int, ...]
    if metric == model.gate.metric:
        rule, worse, margin = metric, (_worse(DIRECTIONS[metric]),), model.gate.margin.value
    elif metric == BIAS:
        regression = model.task == "regression"
        rule, worse = "calibration", (1, -1)
        margin = model.gate.margin.value if regression else model.monitoring.calibration_margin.value
    elif metric == ASSOCIATION:
        rule, worse = "discrimination", (-1,)
        margin = model.monitoring.discrimination_drop.value * abs(_mean(_history(reference, "", "", metric)))
    elif metric in business:
        rule, worse = "business", (_worse(business[metric]),)
    else:
        return None
    history = _history(reference, "", "", metric)
    if not isinstance(figure, float) or not isinstance(rows, int) or not history[0]:
        return None
    return Watched(
        rule=rule,
        model=model,
        manifest=manifest,
        arm=arm,
        metric=metric,
        days=days,
        segment="",
        value="",
        rows=rows,
        figure=figure,
        shown=figure,
        before=_mean(history),
        history=history,
        margin=margin,
        worse=worse,
        excess=_excess(metric, excess, _history(reference, "", "", EXCESS)),
    )


def _excess(metric: str, row: Mapping[str, object] | None, history: History) -> tuple[float, History] | None:
    """None where the metric is no log loss; or the evaluation was measured before this was."""
    if metric != "log_loss" or row is None or not isinstance(row["figure"], float) or not history[0]:
        return None
    return row["figure"], history


def _segments(
    model: ModelSpec,
    manifest: str,
    arm: str,
    days: int,
    of: Mapping[tuple[str, ...], Mapping[str, object]],
    reference: pl.DataFrame,
) -> list[Watched]:
    metric = model.gate.metric
    every = of.get(("", "", metric))
    at_least = {each.name: each.min_rows for each in model.segments}
    found = []
    for (segment, value, name), row in of.items():
        figure, rows = row["figure"], row["rows"]
        if name != metric or not segment or every is None or not isinstance(rows, int):
            continue
        whole = every["figure"]
        if rows < at_least.get(segment, rows + 1) or not isinstance(figure, float) or not isinstance(whole, float):
            continue
        own = _history(reference, segment, value, metric)
        history = _history_above(reference, segment, value, metric)
        excess = _row_above(of.get((segment, value, EXCESS)), of.get(("", "", EXCESS)))
        if history[0]:
            found.append(
                Watched(
                    rule="segment_harm",
                    model=model,
                    manifest=manifest,
                    arm=arm,
                    metric=metric,
                    days=days,
                    segment=segment,
                    value=value,
                    rows=rows,
                    figure=figure - whole,
                    shown=figure,
                    before=_mean(own),
                    history=history,
                    margin=model.gate.segment_margin.value,
                    worse=(_worse(DIRECTIONS[metric]),),
                    excess=_excess(metric, excess, _history_above(reference, segment, value, EXCESS)),
                )
            )
    return found


def _row_above(row: Mapping[str, object] | None, whole: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """A row whose figure is what a segment's has above that of all answers."""
    part, all_of_it = (None if each is None else each["figure"] for each in (row, whole))
    if not isinstance(part, float) or not isinstance(all_of_it, float):
        return None
    return {"figure": part - all_of_it}


def _history(reference: pl.DataFrame, segment: str, value: str, metric: str) -> History:
    of = reference.filter(
        pl.col("segment") == segment,
        pl.col("value") == value,
        pl.col("metric") == metric,
        pl.col("figure").is_not_null(),
    ).sort("day")
    return tuple(of["figure"]), tuple(of["rows"]), tuple(of["spread"].fill_null(0.0))


def _history_above(reference: pl.DataFrame, segment: str, value: str, metric: str) -> History:
    """A segment's figures less those of all answers, day by day."""
    of = reference.filter(pl.col("metric") == metric, pl.col("figure").is_not_null())
    whole = of.filter(pl.col("segment") == "").select("day", whole="figure")
    own = of.filter(pl.col("segment") == segment, pl.col("value") == value).join(whole, on="day").sort("day")
    return tuple(own["figure"] - own["whole"]), tuple(own["rows"]), tuple(own["spread"].fill_null(0.0))


def _mean(history: History) -> float:
    figures, rows, _ = history
    return sum(each * count for each, count in zip(figures, rows, strict=True)) / max(1, sum(rows))


def _worse(better: str) -> int:
    return 1 if better == "lower" else -1


def verdicts(every: Sequence[Watched]) -> list[Verdict]:
    """Judge all that is looked at on a day of a domain, at a chance that they share."""
    chance = alarms_per_week / 7 / max(1, len(every))
    return [told for each in every if (told := each.judged(chance)) is not None]


def findings(domain: Domain, day: str, told: Sequence[Verdict]) -> list[Finding]:
    """What is harmful, one finding for each rule, model and arm, the day and its week together; the worst first."""
    grouped: dict[tuple[str, ...], list[Verdict]] = {}
    for each in sorted((each for each in told if each.harmful), key=_severity, reverse=True):
        of = each.watched
        metric = of.metric if of.rule == "business" else ""
        grouped.setdefault((of.rule, of.model.name, of.manifest, of.arm, metric), []).append(each)
    return [_finding(domain, day, each) for each in grouped.values()]


def _severity(told: Verdict) -> float:
    """How many times the way from the expected figure to the bound."""
    way = abs(told.bound - told.expected.figure)
    return abs(told.watched.figure - told.expected.figure) / way if way else float("inf")


def _finding(domain: Domain, day: str, told: Sequence[Verdict]) -> Finding:
    worst = told[0]
    of = worst.watched
    over = f"over {of.days} days up to {day}" if of.days > 1 else f"on {day}"
    who = f"{domain.name}/{of.model.name} {of.manifest[:12]} ({of.arm})"
    figures: dict[str, float] = {
        "value": of.shown,
        "bound": worst.bound,
        "expected": of.before,
        "rows": float(of.rows),
        "days": float(of.days),
    }
    rule = of.rule
    if rule == "segment_harm":
        named = list(dict.fromkeys(f"{each.watched.segment} {each.watched.value}" for each in told))[:segments_named]
        more = f" and {len(told) - len(named)} more" if len(told) > len(named) else ""
        said = (
            f"{who}: {', '.join(named)}{more} did worse than the other answers {over}: {of.metric} {of.shown:.4g} of "
            f"{of.rows:,} labels, {of.figure:+.4g} against all, where the evaluation had {worst.expected.figure:+.4g} "
            f"and chance explains up to {worst.bound:+.4g}. Look at what has changed for it, and at its features"
        )
        figures["bound"] = worst.bound + of.shown - of.figure
    elif rule == "calibration":
        side = "above" if of.shown > 0 else "below"
        said = (
            f"{who}: its scores were {abs(of.shown):.4g} {side} what came true {over} ({of.rows:,} labels); in the "
            f"evaluation {of.before:+.4g}, and chance explains up to {worst.bound:+.4g}. Decisions made on the scores "
            "are off by as much: look for a shift of the labels, and train again"
        )
    elif rule == "discrimination":
        said = (
            f"{who}: scores and outcomes went together by {of.shown:.4g} {over} ({of.rows:,} labels), against "
            f"{of.before:.4g} in the evaluation; chance explains down to {worst.bound:.4g}. The model can no longer "
            "tell the cases apart: look whether labels are joined to the right cases, and at the features"
        )
    else:
        name = of.metric.removeprefix(BUSINESS)
        said = (
            f"{who}: {name} was {of.shown:.4g} {over} ({of.rows:,} labels), against {of.before:.4g} in the evaluation; "
            f"chance explains up to {worst.bound:.4g}. Look at the drift of its features and at the labels, and train "
            "again if both are right"
        )
    subject = f"{domain.name}/{of.model.name}"
    if rule == "business":
        rule = f"business_{of.metric.removeprefix(BUSINESS)}"
    return Finding(
        layer="outcomes", rule=rule, subject=subject, manifest=of.manifest, day=day, summary=said, figures=figures
    )


def with_bounds(figures: pl.DataFrame, told: Sequence[Verdict]) -> pl.DataFrame:
    """Figures of a day with `expected` and `bound` where one was held against the evaluation."""
    of_day = [each for each in told if each.watched.days == 1]
    rows = [
        (
            each.watched.model.name,
            each.watched.manifest,
            each.watched.arm,
            "model",
            each.watched.segment,
            each.watched.value,
            each.watched.metric,
            each.watched.before,
            each.bound + each.watched.shown - each.watched.figure,
        )
        for each in of_day
    ]
    keys = ["model", *place]
    schema = {**dict.fromkeys(keys, pl.String()), "expected": pl.Float64(), "bound": pl.Float64()}
    bounds = pl.DataFrame(rows, schema=schema, orient="row")
    return figures.drop("expected", "bound").join(bounds, on=keys, how="left", maintain_order="left")
