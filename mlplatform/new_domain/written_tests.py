"""The tests that are written with a package: few, on its own sample, and such that a mistake in it turns them red."""

from mlplatform.new_domain.code_text import text
from mlplatform.new_domain.model_text import example
from mlplatform.new_domain.proposal import Proposal
from mlplatform.new_domain.view_text import history, of_request, view_name

TESTS = '''"""`DOMAIN_NAME`: its sample keeps its contract, known rows give known features, the battery passes."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path

IMPORTS

RECORDS = DOMAIN.source("records")
DAYS = [sample.start + timedelta(days=number) for number in range(sample.demo_days)]


def test_the_sample_keeps_its_contract() -> None:
    """No row of any day is refused, and no day is stopped."""
    for day in DAYS:
        checked = check(sample.read("records", day), RECORDS.contract)
        assert (checked.refused.height, checked.blocking) == (0, ()), day


def test_a_day_holds_what_became_known_on_it() -> None:
    """A row lands on the day on which its outcome is known, so that no day needs another one."""
    for day in DAYS:
        known = facts(sample.read("records", day))["event_time"]
        assert (known.dt.date() == day).all(), day


def test_the_history_of_known_rows() -> None:
    """Two rows of one ENTITY, with outcomes 0 and 1, are counted, and their mean is a half."""
    rows = pl.concat([facts(sample.read("records", day)) for day in DAYS])
    row = rows.drop_nulls(KEY).head(1)
    dtype = row.schema["outcome"]
    two = pl.concat([row.with_columns(outcome=pl.lit(outcome, dtype=dtype)) for outcome in (0, 1)])
    end = datetime.combine(row["event_time"][0].date() + timedelta(days=1), time(), UTC)
    told = compute_view(DOMAIN.views[0], two, end).row(0, named=True)
    assert told["ROWS"] == 2
    assert told["MEAN"] == pytest.approx(0.5)


def test_what_a_known_request_tells() -> None:
    """The example request gives the features that can be read off it."""
    asked = {name: value for name, value in DOMAIN.requests.example.items() if name != "at"}
    told = of_request(parse_requests([asked], DOMAIN.requests.columns)).row(0, named=True)
EXPECTED


def test_the_rule_of_thumb_always_answers() -> None:
    """With the example, and with nothing at all."""
    for request in (DOMAIN.requests.example, {}):
        assert rule_of_thumb(request) is not None


def test_the_domain_passes_the_battery(tmp_path: Path) -> None:
    """What every domain must pass; `mlplatform check-domain DOMAIN_NAME` shows all of it."""
    findings = run(evidence_of(Platform(home=tmp_path), DOMAIN))
    assert [finding for finding in findings if finding.verdict == "failed"] == []
'''


IMPORTED = """import polars as pl
import pytest

from mlplatform.domain_checks.battery import evidence_of, run
OWNfrom mlplatform.features.rules import check
from mlplatform.features.view import compute_view
from mlplatform.provenance.platform import Platform
from mlplatform.scoring.request import parse_requests
"""

OWN = """from PACKAGE import DOMAIN
from PACKAGE.models import rule_of_thumb
from PACKAGE.sample import sample
from PACKAGE.sources import facts
from PACKAGE.views import of_request
"""


def tests_text(proposal: Proposal, package: str) -> str:
    """The module of tests; `package` is what it imports."""
    key = proposal.entity[0]
    features = history(proposal, key)
    told = example(proposal)
    known = [each for each in of_request(proposal) if each.column in proposal.numbers and told[each.column] is not None]
    expected = [
        f'    assert told["{each.name}"] == pytest.approx({text(told[each.column])}, rel=1e-6)' for each in known[:4]
    ]
    inside = package.startswith("mlplatform.")
    imports = IMPORTED.replace("OWN", OWN) if inside else f"{IMPORTED.replace('OWN', '')}\n{OWN}"
    return (
        TESTS.replace("IMPORTS\n", imports)
        .replace("DOMAIN_NAME", proposal.name)
        .replace("PACKAGE", package)
        .replace("ENTITY", view_name(key))
        .replace("KEY", text(list_of(key)))
        .replace("ROWS", features[0].name)
        .replace("MEAN", features[1].name)
        .replace("EXPECTED", "\n".join([*expected, '    assert 1 <= told["request_weekday"] <= 7']))
    )


def list_of(key: tuple[str, ...]) -> object:
    """A key as `drop_nulls` takes it: one name, or several."""
    return key[0] if len(key) == 1 else key
