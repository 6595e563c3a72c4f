"""`DayQuality`: what was found of a domain's data on one day, and the findings that follow from it.

One finding for each model and kind of fault, with all its features: ten features that lose their values at once are one
thing to mend. Each feature stands in one kind only, the plainest: a unit that is another one is out of range, and that
its distribution has moved too is no news.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.quality.sketch import shares
from mlplatform.monitoring.quality.sources import SourceQuality
from mlplatform.scoring.booster import Matrix

slow_drift = "slow_drift"
"""Farther from the training set than any day of it, and no more than the days before: a season, or slow change."""

order_of_rules = ("new_category", "null_rate", "frozen", "out_of_range", "drift")
"""The plainest first."""

harm_of_faults = 0.002
"""Part of the model's gain that rests on values that are missing, unknown or impossible, from which a fault is harmful:
a tenth of the rows of a feature that carries a fiftieth of the model. Quiet days have next to none of it."""

harm_of_drift = 0.01
"""The same for values that are possible and elsewhere: five times as much, for a model bears more of these."""

features_named = 5
"""In words; all of them stand in the finding and in the table."""

_what = {
    "new_category": "hold categories that the training set did not know",
    "null_rate": "have another share of missing values than usual",
    "frozen": "hardly differ from row to row any more",
    "out_of_range": "are outside of their declared range",
    "drift": "have another distribution than usual",
    slow_drift: "have moved slowly, farther than on any day of the training window",
}
_look_at = {
    "new_category": "look for a value that was renamed in the source, or train again with the new ones",
    "null_rate": "look at the view or the request column that they come from",
    "frozen": "look for a default that is filled in, a feed that stands still, or another unit",
    "out_of_range": "look for another unit, or a clipped or shifted column, in the source",
    "drift": "look at what they are made from on that day; if the world has changed, train again",
    slow_drift: "the retraining policy weighs it; nothing needs to be mended",
}
_statistics = {
    "null_rate": "missing",
    "out_of_range": "out of range",
    "new_category": "new",
    "spread": "spread in standard deviations",
    "mean_shift": "mean shift in standard deviations",
    "psi": "PSI",
    "kl": "KL",
    "ks": "KS",
}


@dataclass(frozen=True, kw_only=True)
class FeatureQuality:
    """One feature as one manifest was served it, against the manifest's training set."""

    model: str
    """Its name in the domain."""

    manifest: str
    feature: str
    importance: float
    """Share of the model's total gain."""

    rows: int
    judged: bool
    """There were rows enough."""

    rule: str
    """What is wrong: one of `order_of_rules`, `slow_drift`, or empty."""

    null_rate: float
    out_of_range: float
    """Share of rows outside of the declared range, infinite ones among them."""

    new_category: float
    """Share of rows with a category that training did not know."""

    spread: float
    """Standard deviation in that of the training set; NaN where there are no values."""

    mean_shift: float
    """In standard deviations of the training set; NaN where there are no values."""

    psi: float
    kl: float
    ks: float
    displaced: float
    """Share of rows whose value would have to be another one for the training set's distribution."""

    chance: float
    """p-value, over all statistics of the feature; NaN where it was not looked at."""

    statistic: str
    """Which stands out the most."""

    value: float
    """Of that statistic."""

    bound: float
    """Of that statistic, against the training set: what no day of the training window came near."""

    sketch: bytes = field(repr=False)

    @property
    def harm(self) -> float:
        """Part of the model's gain that rests on displaced values."""
        return self.importance * (0.0 if np.isnan(self.displaced) else self.displaced)

    @property
    def told(self) -> str:
        """In words."""
        if self.statistic in shares:
            return f"{self.feature}: {self.value:.1%} {_statistics[self.statistic]}, usual up to {self.bound:.1%}"
        side = "down to" if self.statistic == "spread" else "up to"
        return f"{self.feature}: {_statistics[self.statistic]} {self.value:.2f}, usual {side} {self.bound:.2f}"


@dataclass(frozen=True, kw_only=True)
class ManifestQuality:
    """What one manifest was served on a day."""

    model: str
    manifest: str
    answers: int
    computed: int = 0
    """Answers that had features."""

    features: tuple[FeatureQuality, ...] = ()
    """The most important first."""

    window: str = ""
    """Of the training set: its first and last day."""

    not_judged: str = ""
    """Why not; empty where it was."""

    missing: bool = False
    """What it should be judged by is gone, which does not mend itself."""

    undeclared: tuple[str, ...] = ()
    """Features that the domain no longer declares; they are judged as the bundle declares them."""

    sample: Matrix | None = field(default=None, repr=False, compare=False)
    """Some rows of the day, for the report; columns as `names`."""

    training_sample: Matrix | None = field(default=None, repr=False, compare=False)
    names: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class DayQuality:
    """The data of a domain on one day."""

    domain: str
    day: str
    manifests: tuple[ManifestQuality, ...]
    sources: tuple[SourceQuality, ...]

    @property
    def answers(self) -> int:
        """In the log."""
        return sum(each.answers for each in self.manifests)

    @property
    def features(self) -> list[FeatureQuality]:
        """Of all manifests: what is wrong first, then by importance."""
        every = [feature for each in self.manifests for feature in each.features]
        return sorted(every, key=lambda each: (_rank(each.rule), -each.harm, -each.importance, each.model))

    @property
    def findings(self) -> list[Finding]:
        """What is wrong; the worst first."""
        found = [*_of_sources(self), *(finding for each in self.manifests for finding in _of_manifest(self, each))]
        return sorted(found, key=lambda each: (not each.harmful, -each.figures.get("harm", 1.0), each.subject))


def _rank(rule: str) -> int:
    return 0 if rule in order_of_rules else 1 if rule else 2


def _of_manifest(day: DayQuality, of: ManifestQuality) -> Iterator[Finding]:
    if of.missing:
        yield Finding(
            layer="data_quality",
            rule="not_judged",
            subject=f"{day.domain}/{of.model}",
            manifest=of.manifest,
            day=day.day,
            harmful=False,
            summary=f"{of.answers:,} answers of {day.domain}/{of.model} {of.manifest[:12]} on {day.day} cannot be held "
            f"to their training set: {of.not_judged}",
            figures={"value": float(of.answers), "bound": 0.0},
        )
    for rule in (*order_of_rules, slow_drift):
        features = sorted((each for each in of.features if each.rule == rule), key=lambda each: -each.harm)
        if features:
            yield _of_features(day, of, rule, features)


def _of_features(day: DayQuality, of: ManifestQuality, rule: str, features: Sequence[FeatureQuality]) -> Finding:
    harm, importance = sum(each.harm for each in features), sum(each.importance for each in features)
    bound = harm_of_drift if rule == "drift" else harm_of_faults
    more = f"; and {len(features) - features_named} more" if len(features) > features_named else ""
    count = "1 feature" if len(features) == 1 else f"{len(features)} features"
    return Finding(
        layer="data_quality",
        rule=rule,
        subject=f"{day.domain}/{of.model}",
        manifest=of.manifest,
        day=day.day,
        harmful=rule != slow_drift and harm >= bound,
        summary=f"{count} of {day.domain}/{of.model} {of.manifest[:12]} on {day.day}, in {features[0].rows:,} rows, "
        f"{_what[rule]}: {'; '.join(each.told for each in features[:features_named])}{more}. "
        f"{importance:.1%} of the model's gain is theirs, {harm:.2%} rests on rows that have moved (harmful from "
        f"{bound:.1%}). {_look_at[rule].capitalize()}",
        figures={
            "value": features[0].value,
            "bound": features[0].bound,
            "harm": harm,
            "importance": importance,
            "rows": float(features[0].rows),
        },
        features=tuple(each.feature for each in features),
    )


def _of_sources(day: DayQuality) -> Iterator[Finding]:
    for each in day.sources:
        if each.rule == "feed":
            said = f"nothing has come of {each.source} for {each.partition}, which usually has {each.usual_rows:,.0f} "
            said += "rows. Look at what lands it; answers are computed from older days meanwhile"
            figures = {"value": 0.0, "bound": each.usual_rows}
        elif each.rule == "quarantine":
            said = (
                f"{each.share:.1%} of the {each.rows:,} rows of {each.source} for {each.partition} break the contract "
            )
            said += f"and are quarantined, usual up to {each.bound:.1%}. Look at `broken_rules` in quarantine"
            figures = {"value": each.share, "bound": each.bound}
        elif each.rule == "rows":
            said = (
                f"{each.rows:,} rows came of {each.source} for {each.partition}, at least {each.least_rows:,.0f} were "
            )
            said += f"to be expected and {each.usual_rows:,.0f} are usual. Look whether the file was cut off"
            figures = {"value": float(each.rows or 0), "bound": each.least_rows}
        elif each.rule == "repeated":
            said = (
                f"the {each.rows:,} rows of {each.source} for {each.partition} are those of an earlier day, which it "
            )
            said += "never sent before. Look at what lands it"
            figures = {"value": 1.0, "bound": 0.0}
        else:
            continue
        yield Finding(
            layer="data_quality",
            rule=each.rule,
            subject=f"{day.domain}/{each.source}",
            day=day.day,
            summary=f"{day.domain}: {said}",
            figures=figures,
        )
