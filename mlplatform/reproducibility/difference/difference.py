"""Two versions of a model side by side: what they were made from, and which logged requests they answer differently.

Requests of the log stand for the traffic: those of one day, or the newest ones, whoever answered them, drawn by their
ids. Nothing is recorded and nothing is decided.
"""

from dataclasses import dataclass
from datetime import date
from hashlib import blake2b

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError, DeclarationError
from mlplatform.monitoring.log_rows import not_picked_up
from mlplatform.monitoring.pickup import rows_by_day
from mlplatform.monitoring.prediction_log import SHADOW, schema
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.reproducibility.difference.answers import Differently, answered_differently
from mlplatform.reproducibility.difference.made import Origins, made_differently
from mlplatform.reproducibility.replay.find import sample

requests_by_default = 1_000
"""A flip of one request in a hundred is met ten times; some seconds of work."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One of the two."""

    model: str
    model_version: str
    manifest: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """All that is told of two versions."""

    before: Version
    after: Version
    made: Origins
    answers: Differently | None
    not_compared: str = ""
    """Why no answers were; empty where they were."""


def difference(
    platform: Platform,
    domain_of_log: Domain,
    before: Bundle,
    after: Bundle,
    *,
    day: str | None = None,
    at_most: int = requests_by_default,
) -> Difference:
    """Compare two versions of one model.

    Parameters
    ----------
    domain_of_log : as it is registered: whose log holds the requests
    day : ISO, UTC, of the requests; None: the newest days that have any
    at_most : requests

    Raises
    ------
    DataError
        They are not of one model.
    """
    if before.manifest.model != after.manifest.model:
        raise DataError(
            f"{before.manifest.short_digest} is of {before.manifest.model}, {after.manifest.short_digest} of "
            f"{after.manifest.model}. Name two versions of one model"
        )
    made = made_differently(platform, before, after)
    answers, why = None, ""
    try:
        rows = requests_of(platform, domain_of_log, after.model.name, day, at_most)
        answers = answered_differently(platform, before, after, rows, made)
    except (DataError, DeclarationError) as error:
        why = str(error)
    return Difference(before=_version(before), after=_version(after), made=made, answers=answers, not_compared=why)


def requests_of(platform: Platform, domain: Domain, model: str, day: str | None, at_most: int) -> pl.DataFrame:
    """Logged requests of a model, one row each: its answer.

    Raises
    ------
    DataError
        Nothing was logged.
    """
    found = pl.concat([pl.DataFrame(schema=schema), *not_picked_up(platform, domain)])
    if day is not None:
        found = found.filter(pl.col("received").dt.date() == date.fromisoformat(day))
    found = _own(found, model)
    for each in reversed(rows_by_day(platform, domain)) if day is None else [day]:
        if found.height >= at_most:
            break
        # A day's requests may be of several models.
        rows = sample(platform, domain, each, at_most * len(domain.models))
        found = pl.concat([found, _own(rows.select(found.columns), model)]).unique(
            "request_id", keep="first", maintain_order=True
        )
    if found.is_empty():
        when = f"on {day}" if day else "yet"
        raise DataError(
            f"no request of {domain.name}/{model} was logged {when}, so no answers can be compared. Serve it and ask "
            "it, or name another `--day`"
        )
    order = sorted(found["request_id"], key=lambda name: blake2b(name.encode()).digest())[:at_most]
    return found.filter(pl.col("request_id").is_in(order)).sort("received", "request_id")


def _own(rows: pl.DataFrame, model: str) -> pl.DataFrame:
    answers = rows.filter(pl.col("model") == model, pl.col("arm") != SHADOW)
    return answers.unique("request_id", keep="first", maintain_order=True)


def _version(bundle: Bundle) -> Version:
    told = bundle.manifest
    return Version(model=told.model, model_version=told.model_version, manifest=told.digest)
