"""What is wrong with what was served on a day, as findings: one for each manifest that was served otherwise."""

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.skew.comparison import DaySkew


def skew_findings(domain: Domain, found: DaySkew) -> list[Finding]:
    """Findings of a day, the manifests with the most answers first. The bound is zero: a value is right or wrong."""
    findings = []
    for each in found.manifests:
        alone = DaySkew(day=found.day, manifests=(each,), rows=found.rows)
        if alone.faults:
            wrong = [feature for feature in alone.features if feature.wrong]
            findings.append(
                Finding(
                    layer="data_quality",
                    rule="skew",
                    subject=f"{domain.name}/{each.model}",
                    day=found.day,
                    manifest=each.manifest,
                    summary="; ".join(alone.faults),
                    figures={"value": wrong[0].share if wrong else 0.0, "bound": 0.0, "answers": float(each.answers)},
                    features=tuple(feature.feature for feature in wrong),
                )
            )
    return findings
