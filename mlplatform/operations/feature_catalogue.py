"""The feature catalogue: each view with its meaning, freshness, coverage, online size, and the models that use it.

It reads listings, one partition of each view and the requests of one day; it computes nothing and changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive, FeatureView
from mlplatform.domains.registered import registered_domains
from mlplatform.errors import DeclarationError, Unavailable
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.online.store import OnlineStore, Statistics, open_online_store
from mlplatform.features.references import likely
from mlplatform.features.tables import Tables
from mlplatform.features.version import view_version
from mlplatform.operations.status import human
from mlplatform.provenance.platform import Platform


@dataclass(frozen=True, kw_only=True)
class DescribedFeature:
    """One feature."""

    name: str
    dtype: str
    meaning: str
    unit: str
    minimum: float | None
    maximum: float | None
    coverage: float | None
    """Share of the last day's requests that were told a value (see `DescribedView.coverage_of`); None: nothing to tell
    it from."""


@dataclass(frozen=True, kw_only=True)
class DescribedView:
    """One view."""

    view: str
    """`owner/view`."""

    meaning: str
    version: str
    entity: tuple[str, ...]
    facts: str
    window_seconds: float
    ttl_seconds: float
    schedule: str
    partitions: int
    newest_partition: str | None
    newest_available_at: datetime | None
    coverage_of: str
    """What coverage is a share of: `requests of <day>`; where a request does not name the view's keys, `rows of <day>`,
    those of the view itself."""

    features: tuple[DescribedFeature, ...]
    online: Statistics | None
    """What the online store holds; None: nothing."""

    online_error: str
    """Why that cannot be told; empty: it can."""

    models: tuple[str, ...]
    """`domain/model` that read it, of every domain."""


def describe(platform: Platform, domain: Domain, view: str | None = None) -> list[DescribedView]:
    """Describe one view of a domain, or all.

    Raises
    ------
    DeclarationError
        The domain has no such view.
    """
    names = [each.name for each in domain.views]
    if view is not None and view not in names:
        raise DeclarationError(f"no view of {domain.name} is called {view!r}. {likely(view, names)}")
    online = open_online_store(platform.online_store)
    return [_described(platform, domain, each, online) for each in domain.views if view in (None, each.name)]


def as_json(found: list[DescribedView]) -> str:
    """For scripts."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def show_list(found: list[DescribedView], console: Console) -> None:
    """One line for each view, which fits 80 characters; `show` tells the rest."""
    table = Table(box=None, pad_edge=False)
    for column in ("view", "key", "features", "window", "ttl", "newest", "coverage", "online"):
        table.add_column(column, no_wrap=True)
    for each in found:
        table.add_row(
            each.view.rpartition("/")[2],
            ",".join(each.entity),
            str(len(each.features)),
            human(timedelta(seconds=each.window_seconds)),
            human(timedelta(seconds=each.ttl_seconds)),
            each.newest_partition or "none",
            _share(min((one.coverage for one in each.features if one.coverage is not None), default=None)),
            _online(each).partition(",")[0],
        )
    console.print(table)


def show(found: list[DescribedView], console: Console) -> None:
    """All there is to say of each view."""
    for each in found:
        console.print(f"[bold]{each.view}[/bold]@{each.version}  {escape(each.meaning)}", highlight=False)
        until = f", available since {each.newest_available_at:%Y-%m-%d %H:%M}Z" if each.newest_available_at else ""
        for name, told in {
            "key": ", ".join(each.entity),
            "facts": each.facts,
            "window": human(timedelta(seconds=each.window_seconds)),
            "time to live": human(timedelta(seconds=each.ttl_seconds)),
            "published": each.schedule,
            "newest": f"{each.newest_partition or 'none'} of {each.partitions} partitions{until}",
            "online": _online(each),
            "models": ", ".join(each.models) or "none",
            "coverage": f"of {each.coverage_of}" if each.coverage_of else "nothing to tell it from",
        }.items():
            console.print(f"  {name}: {escape(told)}", highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        for column in ("feature", "type", "unit", "range", "coverage", "meaning"):
            table.add_column(column, no_wrap=column == "feature")
        for feature in each.features:
            table.add_row(
                feature.name,
                feature.dtype,
                escape(feature.unit),
                _range(feature.minimum, feature.maximum),
                _share(feature.coverage),
                escape(feature.meaning),
            )
        console.print(table)


def _described(platform: Platform, domain: Domain, view: FeatureView, online: OnlineStore) -> DescribedView:
    label = f"{domain.name}/{view.name}"
    store = Tables(platform, domain).features(view)
    current = store.current()
    newest = max(current, default=None)
    rows = store.read([newest] if newest else [])
    of, shares = _coverage(platform, domain, view, rows, newest)
    try:
        held, error = online.statistics(label), ""
    except Unavailable as problem:
        held, error = None, str(problem)
    available = rows.get_column("available_at").max()
    return DescribedView(
        view=label,
        meaning=view.meaning,
        version=view_version(domain, view),
        entity=view.entity,
        facts=view.facts,
        window_seconds=view.look_back.total_seconds(),
        ttl_seconds=view.ttl.total_seconds(),
        schedule=_schedule(domain, view),
        partitions=len(current),
        newest_partition=newest,
        newest_available_at=available if isinstance(available, datetime) else None,
        coverage_of=of,
        features=tuple(
            DescribedFeature(
                name=each.name,
                dtype=str(each.dtype),
                meaning=each.meaning,
                unit=each.unit,
                minimum=each.minimum,
                maximum=each.maximum,
                coverage=shares.get(each.name),
            )
            for each in view.features
        ),
        online=held,
        online_error=error,
        models=tuple(_models(domain, view)),
    )


def _schedule(domain: Domain, view: FeatureView) -> str:
    daily = f"{human(domain.publishing_delay)} after the day is over (UTC)"
    if isinstance(view.schedule, AsFactsArrive):
        return f"as facts arrive, while `mlplatform stream` runs; and {daily}"
    return f"daily, {daily}"


def _coverage(
    platform: Platform, domain: Domain, view: FeatureView, rows: pl.DataFrame, newest: str | None
) -> tuple[str, dict[str, float]]:
    """Share of the last day's requests that were told a value; else share of the newest rows that hold one."""
    names = [each.name for each in view.features]
    facts = Tables(platform, domain).facts(domain.requests.facts)
    day = max(facts.current(), default=None)
    asked = {column.name for column in domain.requests.columns}
    if day is not None and asked.issuperset(view.entity):
        requests = domain.requests.of_facts(facts.read([day])).filter(pl.col("at").is_not_null())
        keys = list(dict.fromkeys([*view.entity, "at"]))
        told = FeatureStore(platform, domain).get_historical_features(requests.select(keys), [f"{view.name}:*"])
        if told.height:
            return f"{told.height:,} requests of {day}", _filled(told, names)
    return (f"{rows.height:,} rows of {newest}", _filled(rows, names)) if rows.height else ("", {})


def _filled(rows: pl.DataFrame, names: Iterable[str]) -> dict[str, float]:
    return {name: 1 - rows.get_column(name).null_count() / rows.height for name in names}


def _models(domain: Domain, view: FeatureView) -> Iterable[str]:
    for each in {**registered_domains(), domain.name: domain}.values():
        for model in each.models:
            if (domain.name, view.name) in [(owner, read.name) for owner, read in map(each.view, model.views)]:
                yield f"{each.name}/{model.name}"


def _online(each: DescribedView) -> str:
    if each.online is None:
        return "not readable" if each.online_error else "nothing"
    return f"{each.online.keys:,} keys, {each.online.bytes / 1e6:.1f} MB"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is None and maximum is None:
        return ""
    return f"{'' if minimum is None else f'{minimum:g}'} … {'' if maximum is None else f'{maximum:g}'}"
