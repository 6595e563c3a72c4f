"""The views of a golden folder: a few facts of each table, and what each view's function makes of them.

Golden requests are answered from stored view values, so a view's function would not be run at all. Here it is: over few
facts, whose values are nobody's features, but move when the function does.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import FeatureView, ImportedView
from mlplatform.domains.registered import registered_domain
from mlplatform.features.pipeline import given
from mlplatform.features.stage import Stage
from mlplatform.features.tables import Tables, partition_end
from mlplatform.features.version import view_version
from mlplatform.features.view import compute_view, look_back_days
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.golden.golden import Golden, GoldenView, arrow, instant_of

facts_at_most = 240
"""Facts kept of a table: some kilobytes. An entity has few of them; a function that counts or averages otherwise shows
all the same."""


@dataclass(frozen=True)
class Owned:
    """A view as its owner declares it now."""

    label: str
    owner: Domain
    view: FeatureView

    @property
    def version(self) -> str:
        """As a manifest pins it."""
        return view_version(self.owner, self.view)

    def of(self, facts: pl.DataFrame, at: str) -> pl.DataFrame:
        """What the function makes of facts.

        Raises
        ------
        DataError, DeclarationError
            It raises, or gives what it does not declare.
        """
        return given(partial(compute_view, self.view, facts), f"view {self.label}", "golden facts", instant_of(at))


def owned_views(domain: Domain, model: ModelSpec) -> dict[str, Owned]:
    """Views that a model reads, by `owner/view`."""
    found = {}
    for reference in model.views:
        name, declared = domain.view(reference)
        owner = registered_domain(name) if isinstance(declared, ImportedView) else domain
        view = owner.view(declared.name)[1]
        assert isinstance(view, FeatureView)
        label = f"{name}/{view.name}"
        found[label] = Owned(label, owner, view)
    return found


def record_views(
    platform: Platform, domain: Domain, model: ModelSpec, before: date
) -> tuple[tuple[GoldenView, ...], dict[str, bytes]]:
    """Take facts of the days before a day, and what each view makes of them; and the files of both."""
    told: list[GoldenView] = []
    files: dict[str, bytes] = {}
    owned = list(owned_views(domain, model).values())
    taken: dict[str, tuple[pl.DataFrame, str]] = {}
    for each in owned:
        path = _facts_path(each)
        if path not in taken:
            days = max(look_back_days(other.view) for other in owned if _facts_path(other) == path)
            taken[path] = _facts(Tables(platform, each.owner).facts(each.view.facts), before, days)
            files[path] = arrow(taken[path][0])
        facts, at = taken[path]
        values = f"views/{each.label.replace('/', '.')}.arrow"
        files[values] = arrow(each.of(facts, at))
        told.append(GoldenView(view=each.label, version=each.version, facts=path, values=values, at=at))
    return tuple(told), files


def _facts(store: Stage, before: date, days: int) -> tuple[pl.DataFrame, str]:
    """Some facts of the last days before a day, or of the last days at all; and the end of the last of them."""
    there = sorted(store.current())
    last = max([day for day in there if day < before.isoformat()] or there)
    end = partition_end(last)
    first = (end - timedelta(days=days)).date().isoformat()
    facts = store.read([day for day in there if first <= day <= last]).drop("available_at")
    facts = facts.sort("event_time", maintain_order=True)
    return facts.gather_every(max(1, -(-facts.height // facts_at_most))), end.isoformat()


def views_again(golden: Golden, domain: Domain, model: ModelSpec) -> tuple[tuple[GoldenView, ...], dict[str, bytes]]:
    """The same facts, and what the views of now make of them."""
    now = owned_views(domain, model)
    told, files = [], {}
    for each in golden.told.views:
        if each.view not in now:
            continue
        owned = now[each.view]
        facts = stored(golden, each.facts)
        files[each.facts] = arrow(facts)
        files[each.values] = arrow(owned.of(facts, each.at))
        told.append(GoldenView(view=each.view, version=owned.version, facts=each.facts, values=each.values, at=each.at))
    return tuple(told), files


def stored(golden: Golden, path: str) -> pl.DataFrame:
    """A frame of a golden folder."""
    return pl.read_ipc(golden.folder / path)


def _facts_path(each: Owned) -> str:
    return f"facts/{each.owner.name}.{each.view.facts}.arrow"
