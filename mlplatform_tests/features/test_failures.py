"""Open failures: kept until made good, counted, and never lost between two runs."""

from datetime import timedelta

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.failures import Failure, open_failures, record_failures
from mlplatform.features.tables import Tables
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import AFTERWARDS

DAY, OTHER = "2024-01-02", "2024-01-05"


def failure(day: str = DAY, stage: str = "raw", made_from: str = "a", reason: str = "no column x") -> Failure:
    """A failure of the orders."""
    return Failure(day=day, stage=stage, table="orders", reason=reason, made_from=made_from, at=AFTERWARDS)


def record(platform: Platform, *failed: Failure, made: dict[str, list[tuple[str, str]]] | None = None) -> None:
    """What one run has to say."""
    record_failures(platform, DOMAIN, failed, closed=made or {}, run_id="test")


def test_there_is_none_before_something_failed(platform: Platform) -> None:
    """No table, no failure; and a run that made everything writes none."""
    assert open_failures(platform, DOMAIN) == []
    record(platform, made={DAY: [("raw", "orders")]})
    assert open_failures(platform, DOMAIN) == []


def test_a_failure_stays_open_until_the_same_table_of_the_same_day_is_made(platform: Platform) -> None:
    """Another stage, another day: nothing is closed; the same one: gone, and its history stays in the table."""
    record(platform, failure(), failure(OTHER))
    record(platform, made={DAY: [("quarantine", "orders")], "2024-01-03": [("raw", "orders")]})
    assert [each.day for each in open_failures(platform, DOMAIN)] == [DAY, OTHER]
    record(platform, made={DAY: [("raw", "orders")]})
    assert open_failures(platform, DOMAIN) == [failure(OTHER)]
    assert open_failures(platform, DOMAIN, [DAY]) == []
    told = Tables(platform, DOMAIN).failures().history([DAY])
    assert told["reason"].to_list() == ["no column x"]
    assert [each.rows for each in Tables(platform, DOMAIN).failures().revisions([DAY])] == [1, 0]


def test_attempts_are_counted_and_the_last_one_is_told(platform: Platform) -> None:
    """The third attempt is number 3, with its own reason, time and inputs; two stages of a day are told apart."""
    record(platform, failure())
    record(platform, failure(), failure(stage="validated"))
    later = AFTERWARDS + timedelta(hours=1)
    record(
        platform,
        Failure(day=DAY, stage="raw", table="orders", reason="no column y", made_from="b", at=later),
    )
    first, second = open_failures(platform, DOMAIN)
    assert (first.stage, first.attempts, first.reason, first.made_from, first.at) == (
        "raw",
        3,
        "no column y",
        "b",
        later,
    )
    assert (second.stage, second.attempts) == ("validated", 1)


@pytest.mark.parametrize("made", [[("raw", "orders")], []])
def test_what_fails_again_after_it_was_made_counts_from_one(platform: Platform, made: list[tuple[str, str]]) -> None:
    """A failure that was closed is over; one that was not goes on."""
    record(platform, failure())
    record(platform, made={DAY: made})
    record(platform, failure())
    assert [each.attempts for each in open_failures(platform, DOMAIN)] == [1 if made else 2]
