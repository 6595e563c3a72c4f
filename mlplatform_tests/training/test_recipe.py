"""The recipe: its key is the same for the same model, and another for whatever goes into it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import Split
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DataError, MissingPartition
from mlplatform.features.tables import day_range
from mlplatform.provenance.platform import Platform
from mlplatform.training.recipe import Recipe, load_recipe, recipe, save_recipe
from mlplatform_tests.fakes.synthetic_home import backfill, land_orders, platform_in

MODEL = DOMAIN.model("late_order")
DAYS = day_range("2024-01-01", "2024-01-04")


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """A platform with four small days in every stage."""
    land_orders(platform, DAYS, rows_per_day=10)
    backfill(platform, DAYS)
    return platform


def test_a_recipe_pins_what_was_there(filled: Platform) -> None:
    """The day after the newest partition, every earlier one, and the instant at which the last was published."""
    made = recipe(filled, DOMAIN, MODEL)
    assert (made.model, made.as_of) == ("synthetic/late_order", "2024-01-05")
    assert made.label_cut_off == "2024-01-05T01:00:00+00:00"
    pinned = dict.fromkeys(DAYS, 1)
    assert made.facts == pinned
    assert made.views == {"synthetic/courier": pinned, "synthetic/district": pinned}
    assert made.key.startswith("2024-01-05-") and len(made.key) == len("2024-01-05-12345678")


def test_an_earlier_as_of_reads_earlier_days_only(filled: Platform) -> None:
    """Partitions from the as-of day on are not in the recipe."""
    made = recipe(filled, DOMAIN, MODEL, as_of="2024-01-03")
    assert list(made.facts) == DAYS[:2]
    assert {tuple(days) for days in made.views.values()} == {tuple(DAYS[:2])}
    assert made.key.startswith("2024-01-03-")


def test_the_same_is_the_same_recipe(filled: Platform) -> None:
    """Asked again, after a further day that it does not use, and read back from its file: one key."""
    made = recipe(filled, DOMAIN, MODEL, as_of="2024-01-05")
    land_orders(filled, ["2024-01-05"], rows_per_day=10)
    backfill(filled, [*DAYS, "2024-01-05"])
    assert recipe(filled, DOMAIN, MODEL, as_of="2024-01-05").key == made.key
    assert recipe(filled, DOMAIN, MODEL).key != made.key


CHANGES: dict[str, Callable[[], Domain]] = {
    "its settings": lambda: with_model(settings=replace(MODEL.settings, rounds=21)),
    "its seed": lambda: with_model(settings=replace(MODEL.settings, seed=1)),
    "its split": lambda: with_model(
        split=Split(warm_up=timedelta(1), calibration=timedelta(1), evaluation=timedelta(1))
    ),
    "its label": lambda: with_model(label=DOMAIN.model("minutes_to_door").label),
    "a view's time to live": lambda: replace(
        DOMAIN, views=(replace(DOMAIN.views[0], ttl=timedelta(days=1)), DOMAIN.views[1])
    ),
    "its fitted values": lambda: replace(
        DOMAIN, fitted=(replace(DOMAIN.fitted[0], fit=lambda rows: sorted(rows["courier"].unique())),)
    ),
    "what a request is": lambda: replace(
        DOMAIN, requests=replace(DOMAIN.requests, of_facts=lambda facts: DOMAIN.requests.of_facts(facts.reverse()))
    ),
}


def with_model(**changes: object) -> Domain:
    """The synthetic domain with a changed binary model."""
    return replace(DOMAIN, models=(replace(MODEL, **changes),))  # type: ignore[arg-type]  # of several fields


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_goes_into_the_model_makes_another_recipe(filled: Platform, what: str) -> None:
    """Settings, seed, split, label, views, fitted values, requests."""
    changed = CHANGES[what]()
    made = recipe(filled, DOMAIN, MODEL)
    assert recipe(filled, changed, changed.model("late_order")).key != made.key


def test_a_corrected_day_makes_another_recipe(filled: Platform) -> None:
    """A new revision of the facts, and of the views over them, is other data."""
    made = recipe(filled, DOMAIN, MODEL)
    land_orders(filled, [DAYS[1]], {DAYS[1]: rows(date(2024, 1, 2), rows_per_day=9)})
    backfill(filled, DAYS)
    corrected = recipe(filled, DOMAIN, MODEL)
    assert corrected.key != made.key
    assert corrected.facts == {**made.facts, DAYS[1]: 2}


def test_another_model_of_the_domain_has_its_own_recipe(filled: Platform) -> None:
    """The same data, another key."""
    assert len({recipe(filled, DOMAIN, model).key for model in DOMAIN.models}) == len(DOMAIN.models)


def test_a_saved_recipe_comes_back_and_is_not_overwritten(filled: Platform, tmp_path: Path) -> None:
    """What stands in the file is the recipe; saving another one there changes nothing."""
    made = recipe(filled, DOMAIN, MODEL)
    path = save_recipe(tmp_path / made.key, made)
    written = path.read_bytes()
    read: Recipe = load_recipe(tmp_path / made.key)
    assert (read, read.key, read.cut_off) == (made, made.key, made.cut_off)
    save_recipe(tmp_path / made.key, replace(made, seed=made.seed + 1))
    assert path.read_bytes() == written


def test_without_a_recipe_there_is_nothing_to_load(tmp_path: Path) -> None:
    """The message says how to make one."""
    with pytest.raises(MissingPartition, match=r"'2024-01-05-00000000'; it has none\. `mlplatform train` makes"):
        load_recipe(tmp_path / "2024-01-05-00000000")


def test_without_data_there_is_no_recipe(platform: Platform, filled: Platform) -> None:
    """No features at all, or none before the day: an error of the data that says what to do."""
    empty = platform_in(platform.home / "empty")
    with pytest.raises(DataError, match="has no features yet"):
        recipe(empty, DOMAIN, MODEL)
    with pytest.raises(MissingPartition, match="any day before 2024-01-01"):
        recipe(filled, DOMAIN, MODEL, as_of="2024-01-01")
