"""The table of findings: what every monitor has said of every day, also that it found nothing."""

import math
from dataclasses import replace

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import findings_of, judgements, keep_findings
from mlplatform.provenance.platform import Platform

DAY, NEXT = "2024-01-20", "2024-01-21"
DRIFT = Finding(
    layer="data_quality",
    rule="drift",
    subject="synthetic/late_order",
    day=DAY,
    summary="amount has moved",
    manifest="abc",
    figures={"value": 0.4, "bound": 0.25},
    features=("amount", "customer"),
)


def test_what_was_kept_is_read_back_as_it_was(platform: Platform) -> None:
    """Figures, features, harm and order come back; a figure that is no number too."""
    odd = replace(DRIFT, rule="psi", figures={"value": math.nan}, features=(), harmful=False)
    keep_findings(platform, DOMAIN, "data_quality", DAY, [odd, DRIFT], "run")
    first, second = findings_of(platform, DOMAIN)
    assert second == DRIFT
    assert math.isnan(first.figures["value"])
    assert replace(first, figures={}) == replace(odd, figures={})


def test_a_day_without_findings_was_judged(platform: Platform) -> None:
    """Nothing found is a judgement; nothing judged is none."""
    assert judgements(platform, DOMAIN) == []
    keep_findings(platform, DOMAIN, "data_quality", DAY, [], "run")
    (judged,) = judgements(platform, DOMAIN)
    assert (judged.monitor, judged.day, judged.findings, judged.run_id) == ("data_quality", DAY, (), "run")
    assert judged.known_at == platform.clock()


def test_a_day_judged_again_says_what_is_believed_now(platform: Platform) -> None:
    """The newest judgement of a day replaces the one before; monitors and days stay apart."""
    keep_findings(platform, DOMAIN, "data_quality", DAY, [DRIFT], "run")
    keep_findings(platform, DOMAIN, "outcomes", DAY, [DRIFT], "run")
    keep_findings(platform, DOMAIN, "data_quality", NEXT, [replace(DRIFT, day=NEXT)], "run")
    keep_findings(platform, DOMAIN, "data_quality", DAY, [], "again")
    assert [(each.monitor, each.day, len(each.findings)) for each in judgements(platform, DOMAIN)] == [
        ("data_quality", DAY, 0),
        ("outcomes", DAY, 1),
        ("data_quality", NEXT, 1),
    ]
    assert [each.day for each in findings_of(platform, DOMAIN, monitors=["data_quality"])] == [NEXT]
    assert [each.day for each in findings_of(platform, DOMAIN, until=DAY)] == [DAY]
    assert [each.day for each in findings_of(platform, DOMAIN, since=NEXT)] == [NEXT]
