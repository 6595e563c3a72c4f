"""Names of the rules by which the monitors of a domain find something: what can be hushed, and what cannot.

A silence of a rule that nobody finds hushes nothing, and whoever meant another one learns of it when the pager rings.
"""

from typing import get_args

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.quality.day_quality import order_of_rules, slow_drift
from mlplatform.monitoring.quality.sources import SourceRule

_rules = frozenset(
    {
        # Data quality.
        *order_of_rules,
        slow_drift,
        *get_args(SourceRule),
        "not_judged",
        "skew",
        "unavailable_views",
        # Model behaviour.
        "breaker_open",
        "constant_scores",
        "estimated_performance",
        "fallback_share",
        "latency",
        "log_dropped",
        "no_traffic",
        "not_replayable",
        "rolled_back",
        "score_shift",
        "scores_differ",
        # Outcomes.
        "calibration",
        "discrimination",
        "label_coverage",
        "segment_harm",
        # The monitors themselves.
        "monitor_broken",
        "monitor_late",
    }
) - {""}


def rules_of(domain: Domain) -> set[str]:
    """Names of the rules; of outcomes also the metrics of the gates, and what the domain counts its business by."""
    metrics = {each.gate.metric for each in domain.models}
    business = {f"business_{metric.name}" for each in domain.models for metric in each.monitoring.business}
    return {*_rules, *metrics, *business}
