"""The decision to train again: enough new rows since the newest recipe, and enough days to split.

It reads listings only. It refuses to guess: where a training could only fail, it waits and says for what.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.features.tables import Tables
from mlplatform.provenance.platform import Platform
from mlplatform.training.recipe import Recipe, recipe
from mlplatform.training.split import windows


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Train by a recipe, or wait; and why."""

    recipe: Recipe | None
    reason: str


def decide(platform: Platform, domain: Domain, model: ModelSpec, newest: Recipe | None) -> Decision:
    """Whether to train a model now.

    Parameters
    ----------
    newest : the recipe that was trained by last, whatever became of it; None: none yet
    """
    fresh, wanted = new_rows(platform, domain, newest), model.retraining.new_rows.value
    told = f"{fresh:,} new rows since {newest.key if newest else 'the beginning'}"
    if fresh < wanted:
        return Decision(recipe=None, reason=f"{told}, {wanted:,.0f} wanted")
    try:
        made = recipe(platform, domain, model)
        start, as_of = (datetime.combine(date.fromisoformat(day), time(), UTC) for day in (made.start, made.as_of))
        windows(start=start, as_of=as_of, spec=model.split, gap=model.label.delay)
    except DataError as error:
        return Decision(recipe=None, reason=str(error))
    if newest is not None and made.key == newest.key:
        return Decision(recipe=None, reason=f"{told}, but their features are not published yet")
    return Decision(recipe=made, reason=told)


def new_rows(platform: Platform, domain: Domain, newest: Recipe | None) -> int:
    """Facts of requests that a recipe does not hold: of days it has not, or has in an earlier revision."""
    held = newest.facts if newest is not None else {}
    current = Tables(platform, domain).facts(domain.requests.facts).current()
    return sum(each.rows for day, each in current.items() if held.get(day) != each.number)
