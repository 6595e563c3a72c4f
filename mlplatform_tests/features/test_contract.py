"""The Great Expectations side of a contract: official verdicts, never a success without a look."""

import itertools
import os
from dataclasses import replace
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.column import Column, Contract, Freshness, RowRule
from mlplatform.errors import ExpectationRaised
from mlplatform.features.contract import documentation, pages_kept, suite, validate
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
    """Great Expectations observes the rows that break a rule over all partitions."""
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


@settings(max_examples=15)
@given(st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 2**40]), min_size=9, max_size=9), min_size=1, max_size=4))
def test_an_expectation_is_met_exactly_when_no_row_breaks_its_rule(counts: list[list[int]]) -> None:
    """Whatever was counted, on whichever days: the official verdict of each rule is that of the Polars rules."""
    names = [rule.name for rule in rules(CONTRACT)]
    good = check(GOOD, CONTRACT)
    checked = {str(day): replace(good, counts=dict(zip(names, each, strict=True))) for day, each in enumerate(counts)}
    judged = validate(checked, CONTRACT, "flight_delay/weather")
    met = {each["expectation_config"]["kwargs"]["column"]: each["success"] for each in judged.result["results"]}
    assert met == {name: not any(each[position] for each in counts) for position, name in enumerate(names)}
    assert judged.success == all(met.values())


def test_great_expectations_itself_refuses_the_same_rows() -> None:
    """Its own expectations, over the rows in pandas, break on the very rows on which the Polars rules break."""
    import great_expectations
    from great_expectations.expectations.core.expect_column_values_to_be_between import (
        ExpectColumnValuesToBeBetween as Between,
    )
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
        ExpectColumnValuesToBeInSet as InSet,
    )
    from great_expectations.expectations.core.expect_column_values_to_match_regex import (
        ExpectColumnValuesToMatchRegex as Match,
    )
    from great_expectations.expectations.core.expect_column_values_to_not_be_null import (
        ExpectColumnValuesToNotBeNull as NotNull,
    )

    columns = (
        Column(name="carrier", dtype=pl.String(), meaning="airline", allowed=("UA", "B6")),
        Column(name="tail", dtype=pl.String(), meaning="airframe", nullable=True, pattern="N[0-9]+|X"),
        Column(name="delay", dtype=pl.Int16(), meaning="delay", nullable=True, minimum=-60, maximum=90),
        Column(name="wind", dtype=pl.Float64(), meaning="wind", nullable=True, minimum=0.5),
    )
    contract = Contract(columns=columns)
    values = (
        ["UA", "ua", "", None],
        ["N1", "X", "N", "N1X", "XN1", "N1\n", " N1", "", None],
        [-61, -60, 90, 91, None],
        [0.49999, 0.5, float("-inf"), float("inf"), None],
    )
    frame = pl.DataFrame(list(itertools.product(*values)), schema=contract.schema, orient="row").with_row_index()
    theirs = {
        "carrier: not null": NotNull(column="carrier"),
        "carrier: one of UA, B6": InSet(column="carrier", value_set=["UA", "B6"]),
        "tail: matches N[0-9]+|X": Match(column="tail", regex=r"\A(?:N[0-9]+|X)\Z"),
        "delay: at least -60": Between(column="delay", min_value=-60),
        "delay: at most 90": Between(column="delay", max_value=90),
        "wind: at least 0.5": Between(column="wind", min_value=0.5),
    }
    batch = (
        great_expectations.get_context(mode="ephemeral")
        .data_sources.add_pandas("rows")
        .add_dataframe_asset("rows")
        .add_batch_definition_whole_dataframe("rows")
        .get_batch({"dataframe": frame.to_pandas()})
    )
    refused = check(frame, contract).refused.with_columns(pl.col("broken_rules").str.split("; "))
    for rule, expectation in theirs.items():
        ours = refused.filter(pl.col("broken_rules").list.contains(rule))["index"].to_list()
        result = batch.validate(expectation, result_format="COMPLETE")
        assert result.result["unexpected_index_list"] == ours, rule
        assert ours, rule


def test_freshness_without_the_end_of_the_day_is_an_error() -> None:
    """A bound that nobody looked at is not called kept."""
    at = Column(name="at", dtype=pl.Datetime("us", "UTC"), meaning="when")
    contract = Contract(columns=(at,), freshness=Freshness(column="at", within=timedelta(hours=1), ahead=timedelta(0)))
    found = check(pl.DataFrame({"at": []}, contract.schema), contract)
    with pytest.raises(ExpectationRaised) as caught:
        validate({"2013-01-01": found}, contract, "flight_delay/weather")
    assert set(caught.value.raised) == {
        "at: at most 0:00:00 after the day's end",
        "at: newest within 1:00:00 of the day's end",
    }


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
        replace(
            CONTRACT,
            columns=(*CONTRACT.columns, Column(name="at", dtype=pl.Datetime("us", "UTC"), meaning="when")),
            rules=(RowRule(name="calm", holds=lambda: pl.col("wind") < 9, meaning="m"),),
            freshness=Freshness(column="at", within=timedelta(hours=6), ahead=timedelta(0)),
        )
    )
    assert told.splitlines()[6:] == [
        "| rule | when broken | meaning |",
        "|---|---|---|",
        "| calm | quarantine | m |",
        "| at: at most 0:00:00 after the day's end | quarantine | nothing is dated later than the day it is in |",
        "| unique(carrier) | quarantine | of good rows with the same key, the first is kept |",
        "| wind: at most 90 % null | warning | share of nulls in the partition |",
        "| rows: at most 2 | blocking | a file that is too long is no ordinary day |",
        "| at: newest within 6:00:00 of the day's end | blocking | an export that broke off is no day |",
        "| refused rows: at most 5 % | blocking | with more rows in quarantine the rest is not trusted either |",
    ]


def test_the_page_shows_every_rule_and_fetches_nothing(tmp_path: Path) -> None:
    """Great Expectations' own page, with the rows that break each rule, readable without a network."""
    page = tmp_path / "data_docs" / "2013-01-01.html"
    validate({"2013-01-01": check(BAD, CONTRACT)}, CONTRACT, "flight_delay/weather", page=page)
    html = page.read_text()
    assert not any(word in html for word in ("http", "src=", "href=", "<script", "@import"))
    for rule in rules(CONTRACT):
        assert escape(rule.name) in html
    assert html.count('"fas fa-times text-danger" >') == 5
    assert html.count('"fas fa-check-circle text-success" >') == 4
    assert len(html) < 50_000


def test_the_page_begins_with_the_broken_rules_and_their_days(tmp_path: Path) -> None:
    """What a sum over many days cannot tell; names that look like HTML are shown as they are."""
    html_like = Column(name="carrier", dtype=pl.String(), meaning="<i>airline</i> & $x", pattern="(?<a>UA|<b>|$)")
    contract = replace(CONTRACT, columns=(html_like, CONTRACT.columns[1]))
    good, bad = check(GOOD.with_columns(carrier=pl.lit("UA")).head(1), contract), check(BAD, contract)
    page = tmp_path / "2013-01-01_2013-01-09.html"
    days = {f"2013-01-0{day}": bad if day > 2 else good for day in range(1, 10)}
    validate(days, contract, "flight_delay/weather", page=page)
    html = page.read_text()
    assert "<h1>flight_delay/weather</h1><p>2013-01-01 to 2013-01-09, 9 days: 5 of 9 rules are broken.</p>" in html
    told = "<td>wind: at most 200</td><td>warning</td><td>14</td>"
    assert f"{told}<td>2013-01-03, 2013-01-04, 2013-01-05, 2013-01-06, 2013-01-07 and 2 more</td>" in html
    assert "<b>" not in html and "<i>" not in html
    assert html.count(escape("carrier: matches (?<a>UA|<b>|$)")) >= 2


def test_only_the_newest_pages_are_kept(tmp_path: Path) -> None:
    """By when they were written: a page of long ago is kept if it was written just now."""
    for number in range(pages_kept + 1):
        old = tmp_path / f"2013-{number:04}.html"
        old.touch()
        os.utime(old, (number, number))
    page = tmp_path / "1999-01-01.html"
    validate({"1999-01-01": check(GOOD, CONTRACT)}, CONTRACT, "flight_delay/weather", page=page)
    left = {each.name for each in tmp_path.iterdir()}
    assert len(left) == pages_kept
    assert {"1999-01-01.html", f"2013-{pages_kept:04}.html"} <= left
    assert not left & {"2013-0000.html", "2013-0001.html"}
