"""What a person has to say: asked with a proposal where somebody is there, and else named by its flag."""

from datetime import timedelta
from pathlib import Path

import pytest

from mlplatform.errors import DataError, DeclarationError
from mlplatform.new_domain.questions import Chosen, Given, choose
from mlplatform.new_domain.sampled import Sampled, read
from mlplatform_tests.fakes.sample_files import deliveries


@pytest.fixture
def sampled(tmp_path: Path) -> Sampled:
    """A sample file, read."""
    return read(deliveries(tmp_path / "deliveries.csv"), "UTC")


HOUR = timedelta(hours=1)
COMPLETE = {"entity": ("Van ID",), "time": "Ordered at", "label": "Late", "known_after": HOUR}


def chosen(sampled: Sampled, **changed: object) -> Chosen:
    """The answers to complete flags, some of them changed."""
    return choose(sampled, Given(**{**COMPLETE, **changed}), None)  # type: ignore[arg-type]  # of any field


def test_whoever_only_presses_enter_gets_a_sensible_domain(sampled: Sampled) -> None:
    """The proposals are the earlier time, the telling name, the later time and the key that comes back."""
    asked: dict[str, str] = {}

    def agree(question: str, proposed: str) -> str:
        asked[question] = proposed
        return proposed

    told = choose(sampled, Given(), agree)
    assert (told.time, told.label, told.known_at, told.entity) == ("ordered_at", "late", "delivered_at", (("van_id",),))
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("flag", "missing", "example"),
    [
        ("--time", "time", "ordered_at"),
        ("--label", "label", "late"),
        ("--known-at", "known_after", "delivered_at"),
        ("--entity", "entity", "van_id"),
    ],
)
def test_a_flag_that_is_missing_is_named_with_an_example(
    sampled: Sampled, flag: str, missing: str, example: str
) -> None:
    """Without a terminal nothing is guessed."""
    with pytest.raises(DeclarationError, match=rf"{flag} is not given.*{flag} {example}"):
        chosen(sampled, **{missing: () if missing == "entity" else None})


def answering(sampled: Sampled, hours: str) -> Chosen:
    """The answers of a person whose sample does not tell when outcomes were known."""
    answers = {"Which column tells when the": "none", "How many hours": hours}
    given = Given(entity=("Van ID",), time="Ordered at", label="Late")
    return choose(sampled, given, lambda question, _: next(answers[each] for each in answers if each in question))


def test_whoever_has_no_column_for_it_is_asked_how_long_the_outcome_takes(sampled: Sampled) -> None:
    """The hours count; what is no number of hours is refused."""
    told = answering(sampled, "48")
    assert (told.known_at, told.known_after) == (None, timedelta(hours=48))
    for hours, why in (("soon", "'soon' is no number of hours"), ("nan", "no number"), ("-1", "Say 0 or more")):
        with pytest.raises(DeclarationError, match=f"--known-after: .*{why}"):
            answering(sampled, hours)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"time": "Weather"}, "--time: weather holds no times that can be read"),
        ({"label": "Lateness"}, "--label: the sample has no column 'Lateness'"),
        ({"label": "Ordered at"}, "--label: ordered_at is the time"),
        ({"entity": ("Late",)}, "--entity: late is given as --label already"),
        ({"entity": ("Remark",)}, "--entity: no remark comes twice"),
        ({"entity": ("Distance (km)",)}, "--entity: distance_km holds numbers; a key is text"),
        ({"known_at": "Delivered at", "known_after": timedelta(1)}, "--known-at and --known-after say the same"),
        ({"outcome_columns": "Van ID"}, "--outcome-columns: van_id is there when it is asked"),
        ({"outcome_columns": "Weather,Wether"}, "--outcome-columns: the sample has no column 'Wether'"),
    ],
)
def test_a_flag_that_cannot_be_is_refused(sampled: Sampled, changed: dict[str, object], told: str) -> None:
    """Each by its name and with the reason."""
    with pytest.raises((DeclarationError, DataError)) as refused:
        chosen(sampled, **changed)
    assert told in str(refused.value)


def test_without_a_column_of_times_there_is_no_domain(tmp_path: Path) -> None:
    """It is told what is needed, and why."""
    (tmp_path / "a.csv").write_text("shop,sold\n" + "".join(f"s{n % 3},{n}\n" for n in range(50)))
    with pytest.raises(DataError, match=r"has no column of times.*Add a column with the time"):
        choose(read(tmp_path / "a.csv", "UTC"), Given(label="sold"), None)


def test_several_keys_of_several_columns(sampled: Sampled) -> None:
    """Each --entity is one key; commas part its columns."""
    assert chosen(sampled, entity=("Van ID", "Van ID, Weather")).entity == (("van_id",), ("van_id", "weather"))
