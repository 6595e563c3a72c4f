"""Feature references: how a read names what it wants, and what those names stand for.

A reference is `view:feature`, `view:*` for all features of a view, `view@version:feature` where the version must be
that one, and `domain/view:feature` for a view of another domain. What it refuses: a name that nothing has, saying what
there is; and a version that is not the one that is declared, saying which is.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TypeVar

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import FeatureView
from mlplatform.domains.registered import registered_domains
from mlplatform.errors import OtherViewVersion, UnknownFeature
from mlplatform.features.version import view_version

Named = TypeVar("Named")

_FORM = re.compile(
    r"(?:(?P<domain>[^/@:*]+)/)?(?P<view>[^/@:*]+)(?:@(?P<version>[^/@:*]+))?:(?P<feature>[^/@:*]+|\*)", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One reference, taken apart."""

    domain: str | None
    """None: the domain that asks."""

    view: str
    version: str | None
    feature: str
    """`*`: all of them."""


@dataclass(frozen=True, kw_only=True)
class AskedView:
    """A view, and which of its features are asked for."""

    owner: Domain
    view: FeatureView
    version: str
    columns: dict[str, str] = field(default_factory=dict)
    """Feature -> name of its column in the answer."""

    @property
    def label(self) -> str:
        """`owner/view`."""
        return f"{self.owner.name}/{self.view.name}"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What some references stand for."""

    views: tuple[AskedView, ...]
    columns: tuple[str, ...]
    """Columns of the answer, in the order of the references."""


def parse_reference(text: str) -> Reference:
    """Take a reference apart.

    Examples
    --------
    >>> parse_reference("carrier:carrier_flights_1d")
    Reference(domain=None, view='carrier', version=None, feature='carrier_flights_1d')
    >>> parse_reference("flight_delay/carrier@0123456789abcdef:*").version
    '0123456789abcdef'
    """
    met = _FORM.fullmatch(text)
    if met is None:
        raise UnknownFeature(
            text, "it is not of the form `view:feature`, `view:*`, `view@version:feature` or `domain/view:feature`"
        )
    return Reference(**met.groupdict())


def resolve(domain: Domain, references: Sequence[str]) -> Asked:
    """Find the views and features that references name; what is named twice is given once.

    A column is called as its feature; where two of them share a name, `view__feature`, and where that is shared too,
    `domain__view__feature`.

    Raises
    ------
    UnknownFeature
        There is no such domain, view or feature, or the reference is of no known form.
    OtherViewVersion
        The view has another version than the reference says.
    """
    views: dict[str, AskedView] = {}
    order: dict[tuple[str, str], None] = {}
    for text in references:
        reference = parse_reference(text)
        owner = _owner(domain, reference, text)
        view = _among({each.name: each for each in owner.views}, reference.view, text, f"view of {owner.name}")
        label = f"{owner.name}/{view.name}"
        if label not in views:
            views[label] = AskedView(owner=owner, view=view, version=view_version(owner, view))
        if reference.version not in (None, views[label].version):
            raise OtherViewVersion(label, str(reference.version), views[label].version)
        features = {each.name: each for each in view.features}
        named = (
            list(features)
            if reference.feature == "*"
            else [_among(features, reference.feature, text, f"feature of {label}").name]
        )
        order |= dict.fromkeys((label, feature) for feature in named)
    names = _column_names(list(order))
    for (label, feature), name in names.items():
        views[label].columns[feature] = name
    return Asked(views=tuple(views.values()), columns=tuple(names.values()))


def model_references(domain: Domain, model: ModelSpec) -> list[str]:
    """References to all features of all views that a model reads, in declared order."""
    read = [domain.view(reference) for reference in model.views]
    return [f"{owner}/{view.name}:{feature.name}" for owner, view in read for feature in view.features]


def likely(name: str, known: Sequence[str]) -> str:
    """What a person who wrote a name that is not known may have meant.

    Examples
    --------
    >>> likely("carier", ["carrier", "weather"])
    'Is `carrier` meant? There is carrier, weather'
    """
    close = get_close_matches(name, known, n=1)
    there = f"There is {', '.join(known)}" if known else "There is none"
    return f"Is `{close[0]}` meant? {there}" if close else there


def _owner(domain: Domain, reference: Reference, text: str) -> Domain:
    if reference.domain in (None, domain.name):
        return domain
    return _among(registered_domains(), str(reference.domain), text, "domain")


def _among(known: Mapping[str, Named], name: str, text: str, kind: str) -> Named:
    if name not in known:
        raise UnknownFeature(text, f"no {kind} is called {name!r}. {likely(name, list(known))}")
    return known[name]


def _column_names(asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The shortest name of each that no other one has too."""
    forms = [
        {each: each[1] for each in asked},
        {each: f"{each[0].partition('/')[2]}__{each[1]}" for each in asked},
        {each: f"{each[0].replace('/', '__')}__{each[1]}" for each in asked},
    ]
    shared = [Counter(form.values()) for form in forms]
    return {
        each: next(form[each] for form, of in zip(forms, shared, strict=True) if of[form[each]] == 1) for each in asked
    }
