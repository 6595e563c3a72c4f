"""Skew as findings: one for each manifest that was served otherwise, with its features, the worst first."""

import polars as pl

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.skew.comparison import DaySkew, FeatureSkew, ManifestSkew
from mlplatform.monitoring.skew.findings import skew_findings
from mlplatform.monitoring.skew.tables import row_schema

DAY = "2024-01-20"


def feature(name: str, mismatched: int) -> FeatureSkew:
    """One of which so many of 100 values were served otherwise."""
    return FeatureSkew(
        model="late_order",
        manifest="abc",
        feature=name,
        compared=100,
        mismatched=mismatched,
        missing=0,
        extra=0,
        unavailable=0,
        publishing=0,
        largest=1.0,
        example="r1",
        cause="",
    )


def day(*features: FeatureSkew) -> DaySkew:
    """A day of one manifest."""
    manifest = ManifestSkew(
        model="late_order", manifest="abc", answers=100, computed=100, looked_at=100, features=features
    )
    return DaySkew(day=DAY, manifests=(manifest,), rows=pl.DataFrame(schema=row_schema))


def test_a_manifest_that_was_served_otherwise_is_a_finding() -> None:
    """Its worst feature gives the figure, and zero is the bound."""
    (found,) = skew_findings(DOMAIN, day(feature("a", 2), feature("b", 0), feature("c", 40)))
    assert (found.rule, found.subject, found.manifest, found.day) == ("skew", "synthetic/late_order", "abc", DAY)
    assert (found.figures["value"], found.figures["bound"]) == (0.4, 0.0)
    assert found.features == ("c", "a")
    assert found.harmful
    assert "c was served otherwise in" in found.summary


def test_what_was_served_as_trained_is_none() -> None:
    """And a day without answers neither."""
    assert skew_findings(DOMAIN, day(feature("a", 0))) == []
    assert skew_findings(DOMAIN, DaySkew(day=DAY, manifests=(), rows=pl.DataFrame(schema=row_schema))) == []
