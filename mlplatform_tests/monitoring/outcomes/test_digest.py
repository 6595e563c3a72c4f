"""The digest says everything once: labels, figures with intervals, what is wrong in any layer, what is late."""

from pathlib import Path

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.tables import day_range
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.monitoring.outcomes.digest import digest
from mlplatform_tests.fakes.judged_answers import JudgedShop, orders_of

LATE, MINUTES, _ = DOMAIN.models


def test_a_digest_of_a_bad_day(tmp_path: Path) -> None:
    """In text and in Markdown."""
    shop = JudgedShop(tmp_path / "home")
    shop.evaluate(LATE)
    days = day_range("2024-02-01", "2024-02-05")
    for day in days:
        shop.answer(orders_of(day), LATE)
    shop.land(*days[:4], orders={days[3]: orders_of(days[3], couriers_turned=True)})
    for day in days[:2]:
        shop.at(day[:-1] + str(int(day[-1]) + 2), 1)
        shop.outcomes(day)
    shop.at("2024-02-06", 1, 30)
    for day in days[3:]:
        shop.outcomes(day)
    drift = Finding(layer="data_quality", rule="drift", subject="synthetic/late_order", day=days[4], summary="far away")
    keep_findings(shop.platform, DOMAIN, "data_quality", days[4], [drift], "test")
    told = digest(shop.platform, DOMAIN, days[4])
    text = told.text
    assert told.subject.startswith("synthetic on 2024-02-05: ") and "findings, some days late" in told.subject
    assert "0% with their label; judged from 2024-02-07 01:00 UTC on" in text
    assert "2024-02-04, the newest day with its labels: 555555555555 (champion), " in text
    assert "log_loss " in text and "evaluation 0." in text and "3 days up to 2024-02-04" in text
    assert "late_orders_announced" in text and "score − outcome" in text
    assert "drift of synthetic/late_order on 2024-02-05 (data_quality): far away" in text
    assert "log_loss of synthetic/late_order on 2024-02-04 (outcomes): " in text
    assert "outcomes has not judged 2024-02-03" in text
    assert "synthetic/minutes_to_door\n  2024-02-05: not looked at yet, or nothing answered" in text
    assert "**Late**" in told.markdown and "- outcomes has not judged" in told.markdown


def test_a_digest_of_nothing(tmp_path: Path) -> None:
    """A domain that answers nothing says so."""
    told = digest(JudgedShop(tmp_path / "home").platform, DOMAIN, "2024-02-05")
    assert told.subject == "synthetic on 2024-02-05: 0 answers, nothing is wrong"
    assert told.text.endswith("Open findings\n  none\n\nLate\n  nothing\n")
