"""What came from the sources: a quiet shop is quiet; a day that lacks, or is refused, or sent again is found."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows as orders_of
from mlplatform.features.tables import day_range
from mlplatform.monitoring.quality.quality import quality_of_day
from mlplatform.monitoring.quality.sources import SourceQuality, sources_of_day, sources_versions
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import Clock, land_orders, run_stage

DAYS = day_range("2024-01-01", "2024-01-15")
DAY, BEFORE = DAYS[-1], DAYS[-2]


def come(platform: Platform, days: list[str], frames: Mapping[str, pl.DataFrame] | None = None) -> None:
    """Orders land and are validated."""
    land_orders(platform, days, frames, rows_per_day=60)
    for stage in ("raw", "validated"):
        run_stage(platform, stage, days)
    run_stage(platform, "quarantine", days)


def broken(day: str, share: float) -> pl.DataFrame:
    """Orders of a day, so many of which are farther away than can be."""
    made = orders_of(date.fromisoformat(day), rows_per_day=60)
    return made.with_columns(
        distance_km=pl.when(pl.int_range(pl.len()) < share * pl.len()).then(4_000.0).otherwise(pl.col("distance_km"))
    )


def at(platform: Platform, day: str, hours: float) -> None:
    """It is so many hours after a day has begun."""
    assert isinstance(platform.clock, Clock)
    platform.clock.now = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(hours=hours)


def found(platform: Platform, day: str = DAY) -> list[SourceQuality]:
    """What is wrong."""
    return [each for each in sources_of_day(platform, DOMAIN, day) if each.rule]


def test_a_quiet_shop_is_quiet(platform: Platform) -> None:
    """Also where a row in a hundred is refused each day, as always."""
    come(platform, DAYS, {day: broken(day, 0.02) for day in DAYS})
    assert all(not found(platform, day) for day in DAYS)
    (told,) = sources_of_day(platform, DOMAIN, DAY)
    assert (told.rows, told.usual_rows) == (60, 60) and told.share == pytest.approx(0.02, abs=0.02)


def test_too_many_refused_rows_are_a_finding(platform: Platform) -> None:
    """Against what is usual, and with the table to look at."""
    come(platform, DAYS, {DAY: broken(DAY, 0.3)})
    (told,) = found(platform)
    assert (told.rule, told.share) == ("quarantine", 0.3) and told.bound < 0.2
    (finding,) = quality_of_day(platform, DOMAIN, DAY).findings
    assert finding.harmful and finding.subject == "synthetic/orders"
    assert "30.0% of the 60 rows of orders" in finding.summary and "broken_rules" in finding.summary


def test_a_few_days_tell_nothing_of_a_share(platform: Platform) -> None:
    """What is usual is not known yet."""
    come(platform, DAYS[:5], {DAYS[4]: broken(DAYS[4], 0.3)})
    assert not found(platform, DAYS[4])


@pytest.mark.parametrize("rows", [0, 20])
def test_too_few_rows_are_a_finding(platform: Platform, rows: int) -> None:
    """None at all, or a file that was cut off."""
    come(platform, DAYS, {DAY: orders_of(date.fromisoformat(DAY), rows_per_day=60).head(rows)})
    (told,) = found(platform)
    assert (told.rule, told.rows, told.least_rows) == ("rows", rows, 30)


def test_the_rows_of_an_earlier_day_are_a_finding(platform: Platform) -> None:
    """Of a source that never sent anything twice."""
    again = orders_of(date.fromisoformat(BEFORE), rows_per_day=60)
    come(platform, DAYS, {DAY: again})
    assert [each.rule for each in found(platform)] == ["repeated"]


def test_a_day_that_does_not_come_is_a_finding_once_it_should_be_there(platform: Platform) -> None:
    """Of the day itself when it was to be published, and of the answers that were computed without it."""
    come(platform, DAYS[:-1])
    at(platform, DAY, 24.5)
    assert not found(platform)
    at(platform, DAY, 25)
    assert [(each.rule, each.partition) for each in found(platform)] == [("feed", DAY)]
    after = "2024-01-16"
    at(platform, after, 24.1)
    assert [(each.rule, each.partition) for each in found(platform, after)] == [("feed", DAY)]
    assert "nothing has come of orders for 2024-01-15" in quality_of_day(platform, DOMAIN, after).findings[0].summary


def test_a_day_is_judged_again_when_its_rows_have_come(platform: Platform) -> None:
    """What it is judged from changes with each revision, and has no colon, which ends it in a data version."""
    come(platform, DAYS[:-1])
    before = sources_versions(platform, DOMAIN, [BEFORE, DAY])
    come(platform, [DAY])
    after = sources_versions(platform, DOMAIN, [BEFORE, DAY])
    assert before[BEFORE] == after[BEFORE] and before[DAY] != after[DAY]
    assert ":" not in "".join(after.values())


def test_a_fault_that_goes_on_does_not_become_usual(platform: Platform) -> None:
    """On its second day it is found again."""
    come(platform, DAYS, {day: broken(day, 0.3) for day in (BEFORE, DAY)})
    assert [each.rule for day in (BEFORE, DAY) for each in found(platform, day)] == ["quarantine", "quarantine"]
