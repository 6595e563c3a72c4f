"""As of: what a model would have been told of an entity at an instant, where that came from, and what is believed now.

Every value is followed from the row of the view's table back to the landed files. What it refuses: an entity that is
not given in full, and an instant without a zone. Features of the request itself are no part of it: they follow from the
request alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.features.feature_store import FeatureStore, as_instant
from mlplatform.features.origins import STREAMED, Landing, Origins
from mlplatform.features.references import AskedView, likely, model_references, resolve
from mlplatform.features.tables import Tables
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform

Scalar = str | int | float | bool | datetime | None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The revision that a value stands in, and what that was made from."""

    table: str
    partition: str
    revision: int
    event_time: datetime
    available_at: datetime
    known_at: datetime
    run_id: str
    code_version: str
    landings: tuple[Landing, ...]
    streamed: tuple[str, ...]
    """`streamed/view/day@entries`: recorded days of its stream that the revision took over. They were published as
    facts arrived, and go back to no landed day."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One value as it was, or is, believed."""

    value: Scalar
    status: str
    """`present`, `null`, `not_found` or `expired`."""

    origin: Origin | None
    """None where there is no value."""


@dataclass(frozen=True, kw_only=True)
class ValueAsOf:
    """One feature, then and now."""

    view: str
    """`owner/view`."""

    feature: str
    unit: str
    then: Told
    now: Told

    @property
    def differs(self) -> bool:
        """Whether another value, or none, is believed now of that instant."""
        then, now = self.then.value, self.now.value
        both_undefined = then != then and now != now  # NaN is the one value that is unequal to itself
        return self.then.status != self.now.status or (then != now and not both_undefined)


@dataclass(frozen=True, kw_only=True)
class AsOf:
    """The answer for one entity at one instant."""

    domain: str
    model: str | None
    entity: dict[str, Scalar]
    at: datetime
    known_at: datetime
    values: tuple[ValueAsOf, ...]


def as_of(
    platform: Platform,
    domain: Domain,
    entity: Mapping[str, Scalar],
    at: datetime,
    *,
    known_at: datetime | None = None,
    model: ModelSpec | None = None,
) -> AsOf:
    """What a request at an instant would have been told.

    Parameters
    ----------
    entity : key -> value; texts are taken as what the key's type reads them as
    at : when it would have been asked; aware
    known_at : the revisions known at this time; None: those known at `at`, as a request then met them
    model : its views; None: all views of the domain whose keys are given

    Raises
    ------
    DataError
        A key is missing, unknown or of another type, or a time has no zone.
    """
    instants = as_instant(at, "at"), as_instant(known_at or at, "known_at")
    views = _views(domain, entity, model)
    store = FeatureStore(platform, domain)
    values = []
    for asked in views:
        rows = _row(platform, asked, entity)
        then, now = (
            _told(platform, asked, store.historical_view(asked, rows, _one(instants[0]), known_by, None, statuses=True))
            for known_by in (instants[1], None)
        )
        values += [
            ValueAsOf(view=asked.label, feature=each.name, unit=each.unit, then=then[each.name], now=now[each.name])
            for each in asked.view.features
        ]
    return AsOf(
        domain=domain.name,
        model=None if model is None else f"{domain.name}/{model.name}",
        entity=dict(entity),
        at=instants[0],
        known_at=instants[1],
        values=tuple(values),
    )


def parse_entity(texts: Iterable[str]) -> dict[str, str]:
    """Keys and values of `key=value,key=value`, given once or several times; a value may hold a comma.

    Examples
    --------
    >>> parse_entity(["carrier=UA,origin=JFK", "district=old town, by the river"])
    {'carrier': 'UA', 'origin': 'JFK', 'district': 'old town, by the river'}
    """
    entity: dict[str, str] = {}
    for text in texts:
        for pair in re.split(r",(?=\w+=)", text):
            key, separator, value = pair.partition("=")
            if not separator or not key:
                raise DataError(f"{pair!r} names no entity. Write key=value, such as carrier=UA,origin=JFK")
            if key.strip() in entity:
                raise DataError(f"{key.strip()!r} is given twice. Ask for one entity at a time")
            entity[key.strip()] = value.strip()
    return entity


def parse_instant(text: str, option: str) -> datetime:
    """An instant as a person writes it.

    Raises
    ------
    DataError
        It is no time, or says no zone.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{option} {text!r} is no time. Write it as 2013-03-15T14:47:00-04:00") from error
    if time.tzinfo is None:
        raise DataError(f"{option} {text} says no zone. Write its offset, as {time.isoformat()}-04:00, or Z for UTC")
    return time


def _views(domain: Domain, entity: Mapping[str, Scalar], model: ModelSpec | None) -> Sequence[AskedView]:
    """The views that are asked, all their keys given."""
    keys = {view.name: view.entity for view in domain.views} | {view.name: view.entity for view in domain.imported}
    known = list(dict.fromkeys(key for each in keys.values() for key in each))
    if unknown := [key for key in entity if key not in known]:
        raise DataError(f"no view of {domain.name} is keyed by {unknown[0]!r}. {likely(unknown[0], known)}")
    if model is not None:
        for owner, view in map(domain.view, model.views):
            if missing := [key for key in view.entity if key not in entity]:
                raise DataError(
                    f"{domain.name}/{model.name} reads {owner}/{view.name}, keyed by {', '.join(view.entity)}. Give "
                    f"also {', '.join(f'{key}=…' for key in missing)}"
                )
        return resolve(domain, model_references(domain, model)).views
    given = [view for view in domain.views if all(key in entity for key in view.entity)]
    if not given:
        told = "; ".join(f"{name}: {', '.join(f'{key}=…' for key in each)}" for name, each in keys.items())
        raise DataError(f"no view of {domain.name} has all its keys given. Its views want {told}")
    return resolve(domain, [f"{view.name}:*" for view in given]).views


def _row(platform: Platform, asked: AskedView, entity: Mapping[str, Scalar]) -> pl.DataFrame:
    schema = Tables(platform, asked.owner).features(asked.view).schema
    return pl.DataFrame([_typed(key, entity[key], schema[key]) for key in asked.view.entity])


def _typed(key: str, value: Scalar, dtype: pl.DataType) -> pl.Series:
    try:
        return pl.Series(key, [value]).cast(dtype)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{key}={value} is no {dtype}, which that key is. Write it as one") from error


def _one(at: datetime) -> pl.Series:
    return pl.Series("at", [at], dtype=instant)


def _told(platform: Platform, asked: AskedView, answer: pl.DataFrame) -> dict[str, Told]:
    row = answer.row(0, named=True)
    origin = _origin(platform, asked, row) if row["status"] == "present" else None
    return {
        feature: Told(
            value=row[feature],
            status="null" if row["status"] == "present" and row[feature] is None else row["status"],
            origin=origin,
        )
        for feature in asked.columns
    }


def _origin(platform: Platform, asked: AskedView, row: Mapping[str, object]) -> Origin:
    tables = Tables(platform, asked.owner)
    store = tables.features(asked.view)
    partition = str(row["partition"])
    (revision,) = (each for each in store.revisions([partition]) if each.number == row["revision"])
    assert isinstance(row["event_time"], datetime)
    assert isinstance(row["available_at"], datetime)
    return Origin(
        table=store.name,
        partition=partition,
        revision=revision.number,
        event_time=row["event_time"],
        available_at=row["available_at"],
        known_at=revision.known_at,
        run_id=revision.run_id,
        code_version=revision.code_version,
        landings=tuple(Origins(platform, asked.owner).landings(revision)),
        streamed=tuple(name for name in revision.inputs if name.startswith(STREAMED)),
    )
