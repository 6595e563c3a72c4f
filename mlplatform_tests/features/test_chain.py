"""What is due, and the chain of a day: whatever lands in whatever order, exactly the days that need it are computed."""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import ChangedWhileRead, DomainCodeRaised
from mlplatform.features.chain import Due, due, run_chain
from mlplatform.features.failures import open_failures
from mlplatform.features.landing.folder import LandingFolder
from mlplatform.features.landing.landing import days_landed_by_all
from mlplatform.features.materialization import Outcome
from mlplatform.features.online.publish import unpublished
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import backfill, land_orders, platform_in

DAYS = day_range("2024-01-01", "2024-01-08")
REACH = 3
"""Days of the longest window of the synthetic domain."""


def run_due(platform: Platform, domain: Domain = DOMAIN) -> dict[str, list[str]]:
    """One run as the sensor asks for it; the days with new or confirmed revisions, by stage."""
    found = due(platform, domain)
    days = day_range(*found.first_range(domain, days_landed_by_all(platform, domain)[-1]))
    chain = run_chain(platform, domain, days, run_id="test", only_due=True)
    return {stage: sorted(outcome.revisions) for stage, outcome in chain}


def run_until_nothing_is_due(platform: Platform, domain: Domain = DOMAIN) -> int:
    """The runs that it took."""
    runs = 0
    while due(platform, domain).days:
        run_due(platform, domain)
        runs += 1
        assert runs < 50, "it never ends"
    return runs


def run_all(platform: Platform, days: Sequence[str], domain: Domain = DOMAIN) -> dict[str, Outcome]:
    """One run as a person asks for it: everything is computed."""
    return dict(run_chain(platform, domain, days, run_id="test"))


def contents(platform: Platform) -> Mapping[str, list[tuple[str, str]]]:
    """Day and content of the current revisions of every table."""
    tables = Tables(platform, DOMAIN)
    return {
        f"{stage}/{name}": [(day, each.content_hash) for day, each in sorted(store.current().items())]
        for stage in stages
        for name, store in tables.of(stage).items()
    }


def revisions(platform: Platform, stage: str) -> dict[str, int]:
    """Day -> number of its current revision in every table of a stage."""
    found: dict[str, int] = {}
    for store in Tables(platform, DOMAIN).of(stage).values():
        for day, each in store.current().items():
            assert found.setdefault(day, each.number) == each.number, (stage, day)
    return found


def malformed(platform: Platform, day: str) -> Path:
    """A file of a day that is no Parquet, and old enough to be finished."""
    path = platform.landing("synthetic") / "orders" / f"{day}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PAR1 this is no Parquet file PAR1")
    return path


def test_nothing_landed_nothing_due(platform: Platform) -> None:
    """An empty home has nothing to do and nothing that waits."""
    found = due(platform, DOMAIN)
    assert (found.days, found.waiting, found.failures) == ((), {}, ())


def test_what_landed_is_due_until_it_is_computed(platform: Platform) -> None:
    """All landed days, in one run; then none, also for a second look; the same bytes again are nothing new."""
    land_orders(platform, DAYS)
    assert list(due(platform, DOMAIN).days) == DAYS
    assert run_due(platform) == dict.fromkeys(stages, DAYS)
    assert due(platform, DOMAIN).days == ()
    land_orders(platform, DAYS)
    assert due(platform, DOMAIN).days == ()


def test_a_view_that_was_never_published_is_due(platform: Platform) -> None:
    """Whoever was killed between the tables and the online store: the newest day is taken once more, to publish."""
    land_orders(platform, DAYS)
    run_due(platform)
    shutil.rmtree(platform.online_store)
    assert due(platform, DOMAIN).days == (DAYS[-1],)
    assert run_due(platform) == {stage: [] for stage in stages}
    assert not unpublished(platform, DOMAIN) and due(platform, DOMAIN).days == ()


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_landing_ends_in_the_same_tables(tmp_path: Path, seed: int) -> None:
    """Days landed one by one or by the handful, shuffled, some twice, some first in a version that is corrected."""
    in_order = platform_in(tmp_path / "in_order")
    land_orders(in_order, DAYS)
    backfill(in_order, DAYS)
    platform, chance = platform_in(tmp_path / "shuffled"), random.Random(seed)
    arriving = [*DAYS, *chance.sample(DAYS, 3)]
    chance.shuffle(arriving)
    first_version = {day: rows(date.fromisoformat(day), seed=99, rows_per_day=20) for day in chance.sample(DAYS, 3)}
    landed: set[str] = set()
    while arriving:
        handful, arriving = arriving[: chance.randint(1, 4)], arriving[chance.randint(1, 4) :]
        for day in handful:
            land_orders(platform, [day], {} if day in landed else first_version)
            landed.add(day)
        if chance.random() < 0.7:
            run_until_nothing_is_due(platform)
    land_orders(platform, DAYS)
    run_until_nothing_is_due(platform)
    assert contents(platform) == contents(in_order)
    assert due(platform, DOMAIN).waiting == {}


def test_a_day_whose_window_lacks_a_day_waits_for_it(platform: Platform) -> None:
    """It is computed as far as `derived`; its features come with the missing day, in the same run."""
    land_orders(platform, [DAYS[0], DAYS[2], DAYS[3]])
    run_until_nothing_is_due(platform)
    assert set(revisions(platform, "derived")) == {DAYS[0], DAYS[2], DAYS[3]}
    assert set(revisions(platform, "feature_store")) == {DAYS[0]}
    assert due(platform, DOMAIN).waiting == dict.fromkeys((DAYS[2], DAYS[3]), f"{DAYS[1]} in the window of courier")
    land_orders(platform, [DAYS[1]])
    assert run_due(platform)["feature_store"] == DAYS[1:4]
    assert due(platform, DOMAIN).waiting == {}


def test_a_correction_recomputes_the_days_whose_windows_it_touches_and_only_those(platform: Platform) -> None:
    """The day itself in every stage, the two after it in the feature store; nothing else gets a revision."""
    land_orders(platform, DAYS)
    run_due(platform)
    third = DAYS[2]
    land_orders(platform, [third], {third: rows(date.fromisoformat(third), seed=5, rows_per_day=30)})
    made = run_due(platform)
    assert made == {
        "raw": [third],
        "validated": [third],
        "quarantine": [third],
        "base": [third],
        "derived": [third],
        "feature_store": DAYS[2 : 2 + REACH],
    }
    assert due(platform, DOMAIN).days == ()
    expected = {day: 2 if day in DAYS[2 : 2 + REACH] else 1 for day in DAYS}
    assert revisions(platform, "feature_store") == expected
    assert revisions(platform, "raw") == {day: 2 if day == third else 1 for day in DAYS}


def test_a_malformed_file_fails_its_day_alone_and_is_tried_again_when_it_is_another(platform: Platform) -> None:
    """The others go all the way; the failure says why; the same file is not due again; a corrected one is."""
    land_orders(platform, DAYS[:4])
    malformed(platform, DAYS[1])
    outcomes = run_all(platform, DAYS[:4])
    assert list(outcomes["raw"].failed) == [DAYS[1]]
    assert set(revisions(platform, "derived")) == {DAYS[0], DAYS[2], DAYS[3]}
    (failure,) = open_failures(platform, DOMAIN)
    assert (failure.day, failure.stage, failure.table, failure.attempts) == (DAYS[1], "raw", "orders", 1)
    assert f"{DAYS[1]}.parquet" in failure.reason and "not a readable Parquet file" in failure.reason
    found = due(platform, DOMAIN)
    assert (found.days, [each.day for each in found.failures]) == ((), [DAYS[1]])
    malformed(platform, DAYS[1]).write_bytes(b"PAR1 another one PAR1")
    assert due(platform, DOMAIN).days == (DAYS[1],)
    run_due(platform)
    assert [each.attempts for each in open_failures(platform, DOMAIN)] == [2]
    land_orders(platform, [DAYS[1]])
    assert run_due(platform)["feature_store"] == DAYS[1:4]
    assert open_failures(platform, DOMAIN) == []


def test_a_failure_is_over_when_the_good_file_is_back_or_the_bad_one_is_gone(platform: Platform) -> None:
    """Nothing is to be computed then, yet a run is due: it closes what a person would look for in vain."""
    land_orders(platform, DAYS[:4])
    run_until_nothing_is_due(platform)
    for day in (DAYS[1], "2024-01-09"):
        malformed(platform, day)
    run_until_nothing_is_due(platform)
    assert [each.day for each in open_failures(platform, DOMAIN)] == [DAYS[1], "2024-01-09"]
    land_orders(platform, [DAYS[1]])
    malformed(platform, "2024-01-09").unlink()
    assert due(platform, DOMAIN).failures == ()
    assert due(platform, DOMAIN).days == (DAYS[1], "2024-01-09")
    assert run_until_nothing_is_due(platform) <= 2
    assert open_failures(platform, DOMAIN) == []
    assert revisions(platform, "raw") == dict.fromkeys(DAYS[:4], 1)


def test_a_file_that_goes_while_it_is_read_is_tried_again_when_it_is_back(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its day fails in that run and is kept as no failure: the very same bytes are due again."""
    land_orders(platform, DAYS[:2])
    path = platform.landing("synthetic") / "orders" / f"{DAYS[0]}.parquet"
    content, read = path.read_bytes(), LandingFolder.read

    def goes(self: LandingFolder, day: str, version: str) -> pl.DataFrame:
        if day == DAYS[0]:
            path.unlink()
        return read(self, day, version)

    with monkeypatch.context() as patched:
        patched.setattr(LandingFolder, "read", goes)
        outcomes = run_all(platform, DAYS[:2])
    assert isinstance(outcomes["raw"].failed[DAYS[0]], ChangedWhileRead)
    assert sorted(outcomes["derived"].revisions) == [DAYS[1]]
    assert open_failures(platform, DOMAIN) == []
    path.write_bytes(content)
    assert DAYS[0] in due(platform, DOMAIN).days
    run_until_nothing_is_due(platform)
    assert set(revisions(platform, "feature_store")) == set(DAYS[:2])


def test_what_landed_need_not_stay(platform: Platform) -> None:
    """Whoever empties the landing place once it was taken in still gets a correction's windows and new code's days."""
    land_orders(platform, DAYS)
    run_until_nothing_is_due(platform)
    for path in (platform.landing("synthetic") / "orders").iterdir():
        path.unlink()
    assert due(platform, DOMAIN).days == () and due(platform, DOMAIN).waiting == {}
    third = DAYS[2]
    land_orders(platform, [third], {third: rows(date.fromisoformat(third), seed=5, rows_per_day=30)})
    run_until_nothing_is_due(platform)
    assert revisions(platform, "feature_store") == {day: 2 if day in DAYS[2 : 2 + REACH] else 1 for day in DAYS}
    assert revisions(platform, "raw") == {day: 2 if day == third else 1 for day in DAYS}
    (platform.landing("synthetic") / "orders" / f"{third}.parquet").unlink()
    other = with_function(function=lambda base: base["orders"].with_columns(late=pl.col("minutes") > 60))
    assert list(due(platform, other).days) == DAYS
    assert due(platform, replace(other, start=date.fromisoformat(third))).days[0] == third


def test_a_broken_blocking_rule_stops_its_day_and_its_rows_are_in_quarantine(platform: Platform) -> None:
    """Every row refused: the day is in `raw` and `quarantine`, in no stage after them, and said to have failed."""
    bad = rows(date.fromisoformat(DAYS[1]), rows_per_day=30).with_columns(distance_km=pl.lit(-1.0))
    land_orders(platform, DAYS[:3], {DAYS[1]: bad})
    run_due(platform)
    tables = Tables(platform, DOMAIN)
    assert tables.quarantine("orders").read([DAYS[1]]).height == 30
    assert set(revisions(platform, "validated")) == {DAYS[0], DAYS[2]}
    (failure,) = open_failures(platform, DOMAIN)
    assert (failure.day, failure.stage) == (DAYS[1], "validated")
    assert "refused rows" in failure.reason
    assert due(platform, DOMAIN).days == ()


def with_function(**changed: object) -> Domain:
    """The synthetic domain with other functions of its derived table."""
    return replace(DOMAIN, derived=(replace(DOMAIN.derived[0], **changed),))  # type: ignore[arg-type]


def test_a_function_of_the_domain_that_raises_fails_its_day_alone(platform: Platform) -> None:
    """It is named with the day and what it raised; another version of the code is tried at once."""

    def raising(base: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        frame = base["orders"]
        if frame["event_time"].dt.date().to_list()[0] == date.fromisoformat(DAYS[1]):
            raise KeyError("no such courier")
        return frame.with_columns(late=pl.col("minutes") > 60)

    land_orders(platform, DAYS[:4])
    broken = with_function(function=raising)
    outcomes = run_all(platform, DAYS[:4], broken)
    assert isinstance(outcomes["derived"].failed[DAYS[1]], DomainCodeRaised)
    (failure,) = open_failures(platform, broken)
    assert (failure.day, failure.stage, failure.table) == (DAYS[1], "derived", "deliveries")
    assert "derived deliveries raised KeyError" in failure.reason and "no such courier" in failure.reason
    assert DAYS[1] not in due(platform, broken).days
    assert DAYS[1] in due(platform, DOMAIN).days
    run_until_nothing_is_due(platform)
    assert open_failures(platform, DOMAIN) == []
    assert set(revisions(platform, "feature_store")) == set(DAYS[:4])


def test_a_run_that_was_left_in_the_middle_is_due_again(platform: Platform) -> None:
    """Stages that were not reached are found from the tables; what was done is not done again."""
    land_orders(platform, DAYS[:3])
    chain = run_chain(platform, DOMAIN, DAYS[:3], run_id="test", only_due=True)
    assert [next(chain)[0] for _ in range(3)] == ["raw", "validated", "quarantine"]
    chain.close()
    assert list(due(platform, DOMAIN).days) == DAYS[:3]
    made = run_due(platform)
    assert made["raw"] == []
    assert made["base"] == DAYS[:3]


def test_other_things_to_do_have_another_version(platform: Platform) -> None:
    """The version of what is due stays while nothing changes, and changes with a file and with the environment."""
    land_orders(platform, DAYS[:2])
    first = due(platform, DOMAIN).version
    assert due(platform, DOMAIN).version == first
    assert due(replace(platform, environment="other"), DOMAIN).version != first
    land_orders(platform, DAYS[2:3])
    assert due(platform, DOMAIN).version != first


def found(*days: str) -> Due:
    """Some days that are due."""
    return Due(days=days, waiting={}, failures=(), version="")


@pytest.mark.parametrize(
    ("days", "last", "expected"),
    [
        (("2024-01-05",), "2024-01-05", ("2024-01-05", "2024-01-05")),
        (("2024-01-05",), "2024-03-01", ("2024-01-05", "2024-01-07")),
        (("2024-01-05", "2024-01-07"), "2024-01-08", ("2024-01-05", "2024-01-08")),
        (("2024-01-05", "2024-01-20"), "2024-01-20", ("2024-01-05", "2024-01-07")),
    ],
)
def test_a_run_takes_the_oldest_days_and_those_that_look_back_to_them(
    days: tuple[str, ...], last: str, expected: tuple[str, str]
) -> None:
    """With three days of look-back: to the last day landed at most, and never across a long gap."""
    assert found(*days).first_range(DOMAIN, last) == expected


def test_a_run_has_a_year_at_most(platform: Platform) -> None:
    """Three years that are due at once begin with the first one."""
    days = day_range("2024-01-01", "2026-12-31")
    first, last = found(*days).first_range(DOMAIN, days[-1])
    assert first == days[0]
    assert len(day_range(first, last)) <= 366 + REACH
