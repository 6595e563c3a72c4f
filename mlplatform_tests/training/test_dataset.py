"""The training set: what each past request could have seen, and the labels that were in by the cut-off."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DataError
from mlplatform.features.tables import day_range
from mlplatform.features.view import view_feature_names
from mlplatform.provenance.content_hash import content_hash
from mlplatform.provenance.platform import Platform
from mlplatform.training.dataset import TrainingSet, build_training_set, immaturity, load_rows, save_training_set
from mlplatform.training.recipe import recipe
from mlplatform_tests.fakes.synthetic_home import TrainedHome, backfill, land_orders

MODEL = DOMAIN.model("late_order")
DAYS = day_range("2024-01-01", "2024-01-06")
THIRD = DAYS[2]


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """A platform with six small days in every stage."""
    land_orders(platform, DAYS)
    backfill(platform, DAYS)
    return platform


def build(platform: Platform, as_of: str | None = None) -> TrainingSet:
    """The training set as of a day, from what the tables hold now."""
    return build_training_set(platform, DOMAIN, MODEL, recipe(platform, DOMAIN, MODEL, as_of=as_of))


def test_each_request_has_the_values_published_before_it(filled: Platform) -> None:
    """A request sees the newest partition whose publication was over, and the truth as its label."""
    made = build(filled)
    landed = pl.concat(rows(date.fromisoformat(day), rows_per_day=30) for day in DAYS)
    assert made.rows["order_id"].sort().equals(landed["order_id"].sort())
    took = (landed["delivered_at"] - landed["ordered_at"]).dt.total_minutes()
    late = dict(zip(landed["order_id"].to_list(), (took > 60).to_list(), strict=True))
    assert made.rows["label"].to_list() == [float(late[order]) for order in made.rows["order_id"].to_list()]
    for row in made.rows.iter_rows(named=True):
        last = (row["at"] - timedelta(hours=1)).date() - timedelta(days=1)
        window = landed.filter(
            pl.col("courier") == row["courier"],
            pl.col("delivered_at").dt.date().is_between(last - timedelta(days=2), last),
        )
        seen = row["courier_deliveries_3d"]
        assert seen == (window.height or None), row


def test_rows_are_sorted_by_time_and_identity(filled: Platform) -> None:
    """The order of a training set is its own, not that of any file."""
    made = build(filled).rows
    assert made.equals(made.sort("at", "order_id"))
    assert list(view_feature_names(DOMAIN, MODEL)) == made.columns[-5:]


def test_labels_count_only_when_they_were_in_by_the_cut_off(filled: Platform) -> None:
    """As of a day, the outcomes of that day and of later ones are not known, nor used."""
    made = build(filled, as_of="2024-01-04")
    cut_off = datetime(2024, 1, 4, 1, tzinfo=UTC)
    assert made.rows["label_available_at"].max() == cut_off
    assert made.rows.height == 3 * 30
    early = replace(recipe(filled, DOMAIN, MODEL), label_cut_off="2024-01-04T00:59:59+00:00")
    assert build_training_set(filled, DOMAIN, MODEL, early).rows.height == 2 * 30


def test_a_recipe_gives_the_same_rows_whatever_came_later(filled: Platform) -> None:
    """Corrections after the recipe was made do not change what it gives: its revisions are pinned."""
    made = recipe(filled, DOMAIN, MODEL)
    before = build_training_set(filled, DOMAIN, MODEL, made)
    land_orders(filled, [THIRD], {THIRD: rows(date.fromisoformat(THIRD), rows_per_day=20)})
    backfill(filled, DAYS)
    again = build_training_set(filled, DOMAIN, MODEL, made)
    assert again.rows.equals(before.rows)
    assert again.content_hash == before.content_hash == content_hash(before.rows)


def test_values_that_were_corrected_since_are_counted(filled: Platform) -> None:
    """Without a correction none differs; after one, those that later requests saw otherwise at the time."""
    before = build(filled)
    assert before.differing_values == 0
    slower = rows(date.fromisoformat(THIRD), rows_per_day=30)
    slower = slower.with_columns(pl.col("delivered_at") - pl.duration(minutes=3))
    land_orders(filled, [THIRD], {THIRD: slower})
    backfill(filled, DAYS)
    after = build(filled)
    names = view_feature_names(DOMAIN, MODEL)
    # The corrected outcomes may be of other orders, so the rows are told by their order.
    both = after.rows.join(before.rows, on="order_id", suffix="_before", how="left", maintain_order="left")
    differing = sum(int((~both[name].eq_missing(both[f"{name}_before"])).sum()) for name in names)
    assert after.differing_values == differing > 30


def test_facts_without_a_label_are_counted_and_left_out(filled: Platform) -> None:
    """A null label is no label; a null time was no request."""
    label = replace(MODEL.label, value=lambda: pl.when(pl.col("items") > 1).then(pl.col("late").cast(pl.Float64)))
    unlabelled = replace(MODEL, label=label)
    made = build_training_set(filled, DOMAIN, unlabelled, recipe(filled, DOMAIN, unlabelled))
    assert made.rows["items"].min() == 2
    assert made.unlabelled == 6 * 30 - made.rows.height > 0
    never = replace(label, value=lambda: pl.when(pl.col("items") > 20).then(1.0))
    hopeless = replace(MODEL, label=never)
    with pytest.raises(DataError, match="no labelled request before 2024-01-07"):
        build_training_set(filled, DOMAIN, hopeless, recipe(filled, DOMAIN, hopeless))
    asked = DOMAIN.requests.of_facts
    some = replace(
        DOMAIN.requests,
        of_facts=lambda facts: asked(facts).with_columns(at=pl.when(pl.col("items") > 1).then("at")),
    )
    domain = replace(DOMAIN, requests=some)
    requested = build_training_set(filled, domain, MODEL, recipe(filled, domain, MODEL))
    assert (requested.rows.height, requested.unlabelled) == (made.rows.height, 0)


def test_a_recipe_of_other_settings_is_refused(filled: Platform) -> None:
    """Built with today's declaration, an old recipe would give a model that its key does not name."""
    made = recipe(filled, DOMAIN, MODEL)
    changed = replace(MODEL, settings=replace(MODEL.settings, rounds=MODEL.settings.rounds + 1))
    with pytest.raises(DataError, match=f"recipe {made.key} was made with another declaration"):
        build_training_set(filled, DOMAIN, changed, made)
    elsewhere = Platform(home=filled.home, clock=filled.clock, environment="another lock file")
    with pytest.raises(DataError, match="another lock file"):
        build_training_set(elsewhere, DOMAIN, MODEL, made)


def test_a_training_set_is_written_once(filled: Platform, tmp_path: Path) -> None:
    """The same rows again change no byte; other rows of the same recipe are refused."""
    made, used = build(filled), recipe(filled, DOMAIN, MODEL)
    folder = tmp_path / "saved"
    described = save_training_set(folder, made, used)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(stamps) == {"training_set.json", "training_set.parquet"}
    assert save_training_set(folder, made, used) == json.loads(json.dumps(described))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    assert load_rows(folder).equals(made.rows)
    assert (described["recipe"], described["rows"]) == (used.key, made.rows.height)
    with pytest.raises(DataError, match="gave other rows before"):
        save_training_set(folder, replace(made, content_hash="other"), used)


def test_without_a_training_set_there_are_no_rows(tmp_path: Path) -> None:
    """The message names the recipe and the step that is missing."""
    with pytest.raises(DataError, match="no training set in 2024-01-05-abc"):
        load_rows(tmp_path / "2024-01-05-abc")


def test_immaturity_compares_early_labels_with_all() -> None:
    """Of the requests that are mature now but were not one label delay ago, those whose label was in by then."""
    cut_off = datetime(2024, 1, 10, 12, tzinfo=UTC)
    edge = cut_off - MODEL.label.delay
    asked = [edge - timedelta(hours=hours) for hours in (1, 2, 5, 7)] + [edge]
    known = [edge, edge + timedelta(hours=1), edge + timedelta(hours=2), edge, edge]
    frame = pl.DataFrame({"at": asked, "label_available_at": known, "label": [1.0, 0.0, 0.0, 1.0, 1.0]})
    found = immaturity(MODEL, cut_off, frame)
    assert (found.requests, found.pending, found.mean_early) == (3, 2, 1.0)
    assert found.mean_all == pytest.approx(1 / 3)
    nobody = immaturity(MODEL, cut_off, frame.clear())
    assert (nobody.requests, nobody.mean_all, nobody.share) == (0, None, None)


def test_a_saved_set_is_what_the_model_was_trained_on(trained: TrainedHome) -> None:
    """The rows in the folder have the hash in its description, and follow from the recipe."""
    described = json.loads((trained.folder / "training_set.json").read_text())
    assert content_hash(load_rows(trained.folder)) == described["content_hash"]
    again = build_training_set(trained.platform, trained.domain, trained.model, trained.recipe)
    assert again.content_hash == described["content_hash"]
