"""The evidence of a rollout: what the prediction log and the labels say of two manifests on the same requests.

A request is a pair when one manifest has answered it and the other has scored it in the shadow; what the shadow was too
busy for makes none. The pairs give the harms that `analysis` judges:

* `failures`: no score of the model. What the fallback chain answered instead is no credit to it.
* `late`: features and score took longer than the objective. Queues and the way to the worker are left out: a shadow
  stands behind those that answer, which says nothing about the model.
* the loss in the gate's metric, as far as labels are known.

The scores also tell what loss they expect of themselves. That is shown, and decides nothing: a challenger that is too
sure of itself expects a smaller loss than its champion, and an honest one a larger.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import Rollout
from mlplatform.features.tables import Tables, day_range
from mlplatform.monitoring.behaviour.day import transitions_between
from mlplatform.monitoring.behaviour.rules import opened
from mlplatform.monitoring.estimated import uncertainty
from mlplatform.monitoring.log_rows import rows_since
from mlplatform.monitoring.outcomes.answers import read_columns
from mlplatform.monitoring.outcomes.labels import facts_of, late_partitions, partitions_of
from mlplatform.monitoring.outcomes.model_day import label_of
from mlplatform.monitoring.outcomes.tally import values_at_most
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.analysis import Look, Pairs, Split, Trip, loss_difference
from mlplatform.rollout.paired import Paired, asked_columns, paired, said_columns
from mlplatform.rollout.pointing import plan_of
from mlplatform.rollout.sequential import Bounds, Values, mean_bounds
from mlplatform.training import metrics
from mlplatform.training.metrics import DIRECTIONS

settles = timedelta(seconds=10)
"""From a step to the first request that must have been routed by it: a plan reaches every gateway within a second, and
the clocks of machines differ by some."""

silence = timedelta(hours=1)
"""A challenger that has scored nothing for so long, while its champion was asked, is not there."""

least_unscored = 10
"""Requests of that time; fewer may have been shed."""

catches_up = timedelta(minutes=3)
"""In which a challenger scores what was answered, even where a service that was down has to start its workers first.
After a quiet hour its champion is ahead of it for a moment."""

margins_at_most = 100
"""What one request may count for in the error of a regression, in margins: as a log loss of 1, whose margin is about a
hundredth. Without it one flight that is a day late would decide."""

stands_for = {"auc": "log_loss", "ece": "log_loss", "rmse": "mae"}
"""Metrics that are no means of requests, so that no pair has a harm in them -> what is judged instead, by the same
margin."""


def gather(
    platform: Platform,
    domain: Domain,
    model: ModelSpec,
    *,
    champion: str,
    challenger: str,
    since: datetime,
    step_since: datetime,
    share: float,
    bake: timedelta,
    now: datetime,
) -> Look:
    """What both arms did since the rollout began, as far as it is known now.

    Parameters
    ----------
    champion, challenger : digests of their manifests
    since, step_since : when the rollout, and its step of now, began
    share : of the keys that the challenger answers in this step
    bake : how long the step is kept at least
    now : labels that were not known then are left out
    """
    rows = rows_since(
        platform,
        domain,
        since,
        [*asked_columns, *said_columns, "manifest", "arm", "plan", "propensity"],
        [champion, challenger],
    )
    found = paired(model, rows, challenger)
    in_step = rows.filter(pl.col("arm") != SHADOW, pl.col("received") >= step_since + settles)
    return Look(
        pairs=_harms(platform, domain, model, found, now),
        now=now,
        step_since=step_since,
        bake=bake,
        split=_split(platform, domain, model, in_step, share) if 0 < share < 1 else None,
        trips=(
            *_unscored(found),
            *_open_breakers(platform, domain, model, challenger, since, now),
            *_absence(rows, champion, challenger, since, now),
        ),
        estimated=_estimated(model, found),
    )


def _harms(platform: Platform, domain: Domain, model: ModelSpec, found: Paired, now: datetime) -> Pairs:
    """Failures and lateness as the requests came; below them the losses, as their labels came.

    A figure whose rows changed their places would break its bounds, which hold for what is only added to. Labels do not
    come in the order of the requests, so they have rows of their own.
    """
    settings = model.rollout or Rollout()
    declared = {each.name: each for each in domain.requests.columns}
    names = dict.fromkeys([*domain.requests.identity, *(each.column for each in model.segments)])
    asked = found.asked.drop("request").hstack(read_columns(found.asked["request"], [declared[name] for name in names]))
    objective = model.objectives.p99_ms.value / 1e3
    champion, challenger = found.champion, found.challenger
    loss, margin, places, lost = _losses(platform, domain, model, asked, found, now)
    unknown, not_yet = np.full(len(places), np.nan), np.full(asked.height, np.nan)
    both_told = np.where(np.isnan(champion.seconds + challenger.seconds), np.nan, 0.0)
    late = (challenger.seconds > objective).astype(np.float64) - (champion.seconds > objective) + both_told
    days = asked["received"].dt.epoch("d").to_numpy().astype(np.int64)
    segments = asked.select(_segment(asked, each.column).alias(each.name) for each in model.segments)
    return Pairs(
        harms={
            "failures": np.concatenate([challenger.failed - champion.failed, unknown]),
            "late": np.concatenate([late, unknown]),
            loss: np.concatenate([not_yet, lost]),
        },
        margins={"failures": settings.failures.value, "late": settings.failures.value, loss: margin},
        segments=pl.concat([segments, segments[places]]),
        by_segment=("failures", loss),
        segment_margins={loss: model.gate.segment_margin.value},
        days=np.concatenate([days, days[places]]),
    )


def _segment(asked: pl.DataFrame, column: str) -> pl.Series:
    """Values of a segment; of an identifier, which is none, the first ones."""
    values = asked.get_column(column).cast(pl.String).fill_null("null")
    first = values.unique(maintain_order=True).head(values_at_most)
    return values.set(~values.is_in(first.implode()), None)


def _losses(
    platform: Platform, domain: Domain, model: ModelSpec, asked: pl.DataFrame, found: Paired, now: datetime
) -> tuple[str, float, npt.NDArray[np.int64], Values]:
    """Name and margin of the loss; places of the pairs that have their label, in the order in which it came, and harms.

    Of a regression, in units in which one request counts for 1 at most.
    """
    metric = stands_for.get(model.gate.metric, model.gate.metric)
    margin = (model.rollout.margin if model.rollout and model.rollout.margin else model.gate.margin).value
    unit = margins_at_most * margin if model.task == "regression" and margin > 0 else 1.0
    name = metric if unit == 1.0 else f"{metric} / {unit:g}"
    labels = _labels(platform, domain, model, asked, now)
    known = (
        # A case may be asked of again when its label is there: that loss is no older than its request.
        labels.select("label", since=pl.max_horizontal("known_at", asked["received"]))
        .with_row_index("place")
        .filter(pl.Series(found.scored) & pl.col("label").is_not_null())
        .sort("since", maintain_order=True)
    )
    places = known["place"].cast(pl.Int64).to_numpy()
    threshold = model.decision.value if model.decision else 0.5
    champion, challenger = (
        metrics.per_row(metric, known["label"].to_numpy(), arm.scores[places], threshold=threshold) / unit
        for arm in (found.champion, found.challenger)
    )
    worse = (challenger, champion) if DIRECTIONS[metric] == "lower" else (champion, challenger)
    return name, margin / unit, places, loss_difference(*worse)


def _labels(platform: Platform, domain: Domain, model: ModelSpec, asked: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """(n, 2) `label` and `known_at` of each request; null where it is not known."""
    identity = list(domain.requests.identity)
    if asked.is_empty():
        return pl.DataFrame(schema={"label": pl.Float64(), "known_at": pl.Datetime("us", "UTC")})
    first, last = asked.select(first=pl.col("at").min(), last=pl.col("at").max()).row(0)
    days = day_range(first.date().isoformat(), last.date().isoformat())
    late = late_partitions(platform, domain)
    current = Tables(platform, domain).facts(domain.requests.facts).current(known_at=now)
    chosen = {*partitions_of(domain, (first, last)), *(each for day in days for each in late.get(day, ()))}
    partitions = {each: current[each] for each in sorted(chosen) if each in current}
    cases = asked.select(identity).drop_nulls().unique()
    facts = facts_of(platform, domain, [model], cases, partitions, days).cases.rename({f"label:{model.name}": "label"})
    joined = asked.join(facts, on=identity, how="left", maintain_order="left")
    return joined.select(label_of(model).alias("label"), "known_at")


def _as_planned(platform: Platform, model: str) -> pl.Expr:
    """Answers that went where the plan of the ledger sends them.

    Not those under a plan file that somebody has edited, nor those that the champion gave because the challenger could
    not: neither says anything of how keys fall.
    """
    plan = plan_of(model, Ledger(platform).entries(model))
    under_it = pl.lit(value=True) if plan is None else pl.col("plan").is_null() | (pl.col("plan") == plan.version)
    return under_it & (pl.col("propensity").is_null() | (pl.col("propensity") > 0))


def _split(platform: Platform, domain: Domain, model: ModelSpec, answers: pl.DataFrame, share: float) -> Split:
    """How the keys fell.

    Under exploration some requests go to the other arm than their key; how probable that was tells which.
    """
    answers = answers.filter(_as_planned(platform, f"{domain.name}/{model.name}"))
    sticky = model.rollout.sticky if model.rollout else None
    key = answers["request_id"]
    if sticky is not None:
        column = next(each for each in domain.requests.columns if each.name == sticky)
        key = read_columns(answers["request"], [column]).to_series()
    own = pl.col("propensity").is_null() | (pl.col("propensity") > 0.5)
    keys = answers.select(key.alias("key"), challenger=(pl.col("arm") == "challenger") == own)
    # A request without a key goes to the champion, whatever the share.
    keys = keys.drop_nulls("key").unique("key", keep="first", maintain_order=True)
    return Split(challenger=int(keys["challenger"].sum()), keys=keys.height, share=share)


def _unscored(found: Paired) -> Iterator[Trip]:
    """Something that is no score, where the champion had one."""
    hit = (found.challenger.refused > 0) & (found.champion.failed == 0)
    if hit.any():
        first = found.asked["request_id"][int(np.flatnonzero(hit)[0])]
        yield Trip(
            name="no_scores",
            reason=f"the challenger gave no number, or an impossible one, for {int(hit.sum()):,} of {len(hit):,} "
            f"requests for which the champion gave one, such as {first}. Look at the features of these requests",
        )


def _open_breakers(
    platform: Platform, domain: Domain, model: ModelSpec, challenger: str, since: datetime, now: datetime
) -> Iterator[Trip]:
    told = transitions_between(platform, domain, since, now)
    for each in opened(told):
        # The online store has one too, which is no fault of a version.
        if each.manifest == challenger and each.breaker == f"{domain.name}/{model.name}":
            yield Trip(
                name="breaker_open",
                reason=f"the challenger's breaker opened {each.times} time{'s' if each.times > 1 else ''} "
                f"({each.reason}). Look at the log of its model workers",
            )


def _absence(rows: pl.DataFrame, champion: str, challenger: str, since: datetime, now: datetime) -> Iterator[Trip]:
    """Nothing of the challenger, while the champion was asked."""
    lately = rows.filter(pl.col("received") > now - silence)
    answers = lately.filter(
        pl.col("manifest") == champion, pl.col("arm") != SHADOW, pl.col("received") <= now - catches_up
    ).height
    if since <= now - silence and answers >= least_unscored and challenger not in lately["manifest"]:
        yield Trip(
            name="no_answers",
            reason=f"the challenger has scored none of the {answers:,} requests of the last hour. Look whether its "
            "model workers run (`/model` says why a version is refused), and how many rows the shadow has shed",
        )


def _estimated(model: ModelSpec, found: Paired) -> Bounds | None:
    """The difference of the losses that the scores expect of themselves; None where they expect none."""
    if model.task == "regression":
        return None
    own, other = (uncertainty(arm.scores[found.scored]) for arm in (found.challenger, found.champion))
    alpha = (model.rollout or Rollout()).error.value
    return mean_bounds(loss_difference(own, other), low=-1.0, high=1.0, alpha=alpha)
