"""Thresholds have reasons: a number that decides says why it is that number."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from mlplatform.domain.threshold import Threshold
from mlplatform.domain_checks.evidence import Evidence
from mlplatform.domain_checks.verdict import Fault, Looked

placeholders = ("todo", "tbd", "fixme", "xxx", "n/a", "reason", "because", "default", "why", "say why", "placeholder")
"""What stands where a reason was meant to be written later."""

least_words = 2
"""`small data` is short, and a reason."""


def thresholds_have_reasons(evidence: Evidence) -> Looked:
    """Every threshold of the domain says why it is that number."""
    found = list(_thresholds(evidence.domain, "", ""))
    faults = []
    for owner, place, threshold in found:
        if not is_reason(threshold.reason):
            given = f"the reason {threshold.reason!r}" if threshold.reason.strip() else "no reason"
            mend = "Write what speaks for this number: a measurement, a cost, a promise"
            told = f"the threshold {threshold.value:g} has {given}. {mend}"
            faults.append(Fault(what=owner, where=place, told=told))
    return Looked(at=f"{len(found)} thresholds", faults=tuple(faults))


def is_reason(text: str) -> bool:
    """Whether a text says anything.

    Examples
    --------
    >>> is_reason("both mistakes cost the same"), is_reason(" "), is_reason("TODO: say why")
    (True, False, False)
    """
    words = text.split()
    plain = text.strip().lower().rstrip(".!?…:")
    begins = plain.startswith(("todo", "tbd", "fixme", "xxx"))
    return (
        len(words) >= least_words and any(each.isalpha() for each in text) and not begins and plain not in placeholders
    )


def _thresholds(each: Any, owner: str, place: str) -> Iterator[tuple[str, str, Threshold]]:
    """Every threshold below a declaration, with the named part that holds it and the way to it."""
    if isinstance(each, Threshold):
        yield owner, place, each
    elif is_dataclass(each) and not isinstance(each, type):
        name = getattr(each, "name", None)
        if isinstance(name, str):
            owner, place = f"{_kind(each)} {name}", ""
        for field in fields(each):
            yield from _thresholds(getattr(each, field.name), owner, f"{place}.{field.name}".lstrip("."))
    elif isinstance(each, Mapping):
        for key, inner in each.items():
            yield from _thresholds(inner, owner, f"{place}[{key}]")
    elif isinstance(each, tuple):
        for inner in each:
            yield from _thresholds(inner, owner, place)


def _kind(each: Any) -> str:
    return {"ModelSpec": "model", "FeatureView": "view"}.get(type(each).__name__, type(each).__name__.lower())
