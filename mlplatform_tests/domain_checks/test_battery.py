"""The battery passes what is right, names what is broken, and says what it could not judge."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from mlplatform.domain.domain import Domain
from mlplatform.domain.threshold import Threshold
from mlplatform.domain_checks import battery, chance, leaks
from mlplatform.domain_checks.evidence import Evidence, days_of
from mlplatform.domain_checks.reasons import is_reason
from mlplatform.domain_checks.verdict import Fault, Finding
from mlplatform.domains.flight_delay import DOMAIN as FLIGHT_DELAY
from mlplatform.domains.synthetic import DOMAIN as SYNTHETIC
from mlplatform.domains.synthetic.ground_truth import Switches, rows
from mlplatform.features.landing.landing import land_sample
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.broken_twins import TWINS, Twin
from mlplatform_tests.fakes.odd_domains import ODD_DOMAINS, kiosk


def evidence_of(domain: Domain) -> Evidence:
    """The evidence of a domain with a sample; nothing of a platform is needed."""
    sample = domain.sample
    assert sample is not None
    return Evidence(
        domain, lambda source, day: sample.read(source, date.fromisoformat(day)), days_of(sample.start, sample.end)
    )


def findings_of(domain: Domain, *names: str) -> dict[str, Finding]:
    """The verdict of each check."""
    return {each.check: each for each in battery.run(evidence_of(domain), names or tuple(battery.checks))}


@pytest.mark.parametrize("domain", [SYNTHETIC, FLIGHT_DELAY], ids=lambda each: each.name)
def test_the_domains_that_ship_pass_every_check(domain: Domain) -> None:
    """Nothing fails, and nothing is skipped."""
    found = findings_of(domain)
    assert {name: each.faults for name, each in found.items() if each.verdict != "passed"} == {}
    assert list(found) == list(battery.checks)


@pytest.mark.parametrize("twin", TWINS, ids=lambda each: each.name)
def test_a_broken_twin_is_caught_by_the_check_meant_for_it(twin: Twin) -> None:
    """The check fails and names the part and the place; the same check passes for the domain as it is."""
    finding = findings_of(twin.domain, twin.check)[twin.check]
    assert finding.verdict == "failed"
    named = [each for each in finding.faults if twin.what in each.what and twin.where in each.where]
    assert named, finding.faults
    # What to do next stands after what is wrong.
    assert all(len(each.told.split(". ")) > 1 for each in finding.faults), finding.faults


def test_every_check_has_a_twin_that_it_catches() -> None:
    """No check is there that nothing has ever failed."""
    assert {twin.check for twin in TWINS} == set(battery.checks)


@pytest.mark.parametrize("make", ODD_DOMAINS, ids=lambda each: each.__name__)
def test_an_odd_domain_that_is_right_fails_nothing(make: Callable[[], Domain]) -> None:
    """No false alarm, and whatever is skipped says why."""
    found = findings_of(make())
    assert {name: each.faults for name, each in found.items() if each.verdict == "failed"} == {}
    assert all(each.told for each in found.values())


def test_too_few_rows_are_said_to_be_too_few() -> None:
    """A sample of six days cannot show a leak, and is not told to be free of one."""
    found = findings_of(kiosk(), "label among features", "label shuffle", "fitted values")
    assert {each.verdict for each in found.values()} == {"skipped"}
    assert "60 of each are needed" in found["label among features"].told
    assert "Give the sample more days" in found["label shuffle"].told
    assert found["fitted values"].told == "no model has fitted values"


def test_a_column_that_the_source_overwrites_with_the_outcome_is_flagged() -> None:
    """The synthetic shop's own leak: `items` is written again at the door."""
    assert SYNTHETIC.sample is not None

    def leaking(_source: str, day: date) -> pl.DataFrame:
        return rows(day, switches=Switches(leak=True))

    leaked = replace(SYNTHETIC, sample=replace(SYNTHETIC.sample, read=leaking))
    finding = findings_of(leaked, "label among features")["label among features"]
    assert "feature order_items" in {each.where for each in finding.faults}


def test_a_row_that_lands_on_two_days_is_told_by_the_features() -> None:
    """The contract's key looks at one day only."""
    assert SYNTHETIC.sample is not None

    def again(_source: str, day: date) -> pl.DataFrame:
        return rows(day, switches=Switches(sent_again=0.1))

    repeated = replace(SYNTHETIC, sample=replace(SYNTHETIC.sample, read=again))
    (fault,) = findings_of(repeated, "duplicates")["duplicates"].faults
    assert fault.what == "source orders"
    assert "courier_deliveries_3d" in fault.told


def test_a_domain_may_say_that_a_strong_feature_is_honest() -> None:
    """A `too_good` threshold of the gate takes the place of the battery's own."""
    leaking = next(twin for twin in TWINS if twin.name == "outcome in an on-demand feature").domain
    late_order = leaking.model("late_order")
    bar = replace(late_order.gate, too_good={"auc": replace(late_order.gate.margin, value=1.1)})
    only = replace(leaking, models=(replace(late_order, gate=bar),))
    assert findings_of(only, "label among features")["label among features"].verdict == "passed"


def test_a_check_that_something_keeps_from_judging_is_skipped_and_sample_says_why() -> None:
    """One broken view does not make twelve checks fail, nor pass."""
    raising = next(twin for twin in TWINS if twin.name == "view that raises").domain
    found = findings_of(raising, "sample", "batch of one")
    assert found["sample"].faults[0].what == "view courier"
    assert found["batch of one"].verdict == "skipped"
    assert "`sample` tells why" in found["batch of one"].told


def test_a_frame_that_makes_no_sense_fails_its_check_and_no_other() -> None:
    """A domain may give anything at all; the battery goes on."""
    (source,) = SYNTHETIC.sources
    odd = replace(SYNTHETIC, sources=(replace(source, base=lambda _landed: None),))  # type: ignore[arg-type, return-value]
    found = findings_of(odd, "sample", "same twice", "reasons")
    assert found["sample"].verdict == "failed"
    assert found["same twice"].verdict in ("failed", "skipped")
    assert found["reasons"].verdict == "passed"


def test_a_domain_without_a_sample_is_judged_by_what_has_landed(platform: Platform) -> None:
    """The landed days of the home take the place of the sample."""
    assert SYNTHETIC.sample is not None
    later = replace(platform, clock=lambda: datetime(2024, 6, 1, tzinfo=UTC))
    land_sample(later, SYNTHETIC, date(2024, 1, 1), date(2024, 1, 5))
    evidence = battery.evidence_of(later, replace(SYNTHETIC, sample=None))
    assert evidence.days == ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05")
    assert next(battery.run(evidence, ["sample"])).verdict == "passed"


def test_a_domain_with_neither_sample_nor_landed_days_is_judged_by_its_declarations(platform: Platform) -> None:
    """What needs rows is skipped and says so; what needs none is checked."""
    found = {each.check: each for each in battery.run(battery.evidence_of(platform, replace(SYNTHETIC, sample=None)))}
    assert found["sample"].told == "synthetic has neither a sample nor landed days"
    assert [name for name, each in found.items() if each.verdict == "passed"] == [
        "example request",
        "fallback rules",
        "reasons",
    ]


def test_a_finding_is_told_in_lines_and_as_json() -> None:
    """One line per check, the offending place below it, and the same for scripts."""
    fault = Fault(what="view [courier]", where="column late, row courier=c1", told="changes. Mend it")
    finding = Finding(check="row order", meaning="m", verdict="failed", told="1 fault", faults=(fault,))
    said = StringIO()
    battery.show(finding, Console(file=said, width=200))
    head, below = said.getvalue().splitlines()
    assert head.split() == ["failed", "row", "order", "1", "fault"]
    assert below.strip() == "view [courier] · column late, row courier=c1: changes. Mend it"
    told = json.loads(battery.as_json(SYNTHETIC, [finding]))
    assert (told["domain"], told["failed"]) == ("synthetic", 1)
    assert told["checks"][0]["faults"][0]["where"] == "column late, row courier=c1"


def test_the_batterys_own_thresholds_have_reasons() -> None:
    """It keeps what it asks of others."""
    own = [each for room in (chance, leaks) for each in vars(room).values() if isinstance(each, Threshold)]
    assert len(own) == 5
    assert all(is_reason(each.reason) for each in own)


def test_the_battery_writes_nothing(platform: Platform, tmp_path: Path) -> None:
    """It is safe to run beside a working platform."""
    list(battery.run(battery.evidence_of(platform, kiosk())))
    assert list(tmp_path.rglob("*")) == []
