"""The Great Expectations side of a contract: official verdicts, never a success without a look."""

from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.domain.column import Column, Contract, RowRule
from mlplatform.errors import ExpectationRaised
from mlplatform.features.contract import documentation, suite, validate
from mlplatform.features.rules import check, rules

# Great Expectations 1.24 imports a standard module that Python 3.11 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_parse' is deprecated:DeprecationWarning")

CONTRACT = Contract(
    columns=(
        Column(name="carrier", dtype=pl.String(), meaning="airline", pattern="UA|B6"),
        Column(
            name="wind",
            dtype=pl.Float64(),
            meaning="wind",
            unit="mph",
            nullable=True,
            minimum=0,
            maximum=200,
            max_null_share=0.9,
            severity="warning",
        ),
    ),
    unique=("carrier",),
    max_rows=2,
)
GOOD = pl.DataFrame({"carrier": ["UA", "B6"], "wind": [1.0, None]})
BAD = pl.DataFrame({"carrier": ["UA", "ZZ", None], "wind": [1048.0, 300.0, 1.0]})


def test_one_expectation_per_rule_with_its_severity() -> None:
    """The suite holds the contract's rules and no other, in order, each with what breaking it does."""
    expectations: Any = suite(CONTRACT, "flight_delay/weather").to_json_dict()["expectations"]
    severities = {each["kwargs"]["column"]: each["severity"] for each in expectations}
    assert list(severities) == [rule.name for rule in rules(CONTRACT)]
    assert severities["carrier: not null"] == "warning"
    assert severities["wind: at most 200"] == "info"
    assert severities["rows: at most 2"] == "critical"


def test_good_partitions_succeed() -> None:
    """Every expectation is met when no partition breaks a rule."""
    judged = validate({"2013-01-01": check(GOOD, CONTRACT)}, CONTRACT, "flight_delay/weather")
    assert judged.success
    assert judged.result["success"] is True
    assert judged.result["suite_name"] == "flight_delay/weather"
    assert judged.result["statistics"]["evaluated_expectations"] == len(rules(CONTRACT))


def test_one_bad_partition_of_many_fails_with_true_counts() -> None:
    """Great Expectations observes the rows that break a rule over all partitions, and the table says where they are."""
    checked = {f"2013-01-{day:02}": check(GOOD, CONTRACT) for day in range(1, 10)} | {
        "2013-01-10": check(BAD, CONTRACT)
    }
    judged = validate(checked, CONTRACT, "flight_delay/weather")
    observed = {
        each["expectation_config"]["kwargs"]["column"]: each["result"]["observed_value"]
        for each in judged.result["results"]
    }
    assert not judged.success
    assert observed == {
        "carrier: not null": 1,
        "carrier: matches UA|B6": 1,
        "wind: finite": 0,
        "wind: at least 0": 0,
        "wind: at most 200": 2,
        "unique(carrier)": 0,
        "wind: at most 90 % null": 0,
        "rows: at most 2": 1,
        "refused rows: at most 5 %": 1,
    }
    assert "| wind: at most 200 | warning | 2 | 2013-01-10 |" in judged.table
    assert "| carrier: matches UA\\|B6 | quarantine | 1 | 2013-01-10 |" in judged.table
    assert "| wind: finite | warning | 0 |  |" in judged.table


def test_a_rule_that_was_not_counted_is_an_error() -> None:
    """An expectation that raises inside the result is not taken for a verdict, good or bad."""
    checked = check(GOOD, CONTRACT)
    counts = {name: count for name, count in checked.counts.items() if name != "wind: finite"}
    partitions = {"2013-01-01": checked, "2013-01-02": replace(checked, counts=counts)}
    with pytest.raises(ExpectationRaised, match=r"'wind: finite' raised inside: .*does not exist") as caught:
        validate(partitions, CONTRACT, "flight_delay/weather")
    assert list(caught.value.raised) == ["wind: finite"]


def test_no_partition_is_no_success() -> None:
    """Nothing looked at is not a contract kept."""
    with pytest.raises(ExpectationRaised):
        validate({}, CONTRACT, "flight_delay/weather")


def test_it_leaves_no_file_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run writes neither into the working folder nor into the home, and shows no progress bar."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    validate({"2013-01-01": check(GOOD, CONTRACT)}, CONTRACT, "flight_delay/weather")
    assert list(tmp_path.rglob("*")) == []
    assert capfd.readouterr() == ("", "")


def test_documentation_has_a_line_per_column() -> None:
    """The page tells type, unit, values and nulls, and a bar in a pattern does not break the table."""
    assert documentation(CONTRACT).splitlines()[:4] == [
        "| column | type | unit | values | nullable | meaning |",
        "|---|---|---|---|---|---|",
        "| carrier | String |  | matches UA\\|B6 | no | airline |",
        "| wind | Float64 | mph | 0 to 200 | up to 90 % | wind |",
    ]


def test_documentation_has_a_line_per_rule_over_rows_and_days() -> None:
    """What a column's own line cannot tell: key, null shares, row counts, freshness, the share in quarantine."""
    told = documentation(
        replace(CONTRACT, rules=(RowRule(name="calm", holds=lambda: pl.col("wind") < 9, meaning="m"),))
    )
    assert told.splitlines()[5:] == [
        "| rule | when broken | meaning |",
        "|---|---|---|",
        "| calm | quarantine | m |",
        "| unique(carrier) | quarantine | of good rows with the same key, the first is kept |",
        "| wind: at most 90 % null | warning | share of nulls in the partition |",
        "| rows: at most 2 | blocking | a file that is too long is no ordinary day |",
        "| refused rows: at most 5 % | blocking | with more rows in quarantine the rest is not trusted either |",
    ]


def test_the_page_shows_every_rule_and_fetches_nothing(tmp_path: Path) -> None:
    """Great Expectations' own page, with the rows that break each rule, readable without a network."""
    page = tmp_path / "data_docs" / "2013-01-01.html"
    validate({"2013-01-01": check(BAD, CONTRACT)}, CONTRACT, "flight_delay/weather", page=page)
    html = page.read_text()
    assert "https://" not in html and "http://" not in html
    for rule in rules(CONTRACT):
        assert escape(rule.name) in html
    assert "flight_delay/weather" in html
    assert html.count("fa-times") >= 5
