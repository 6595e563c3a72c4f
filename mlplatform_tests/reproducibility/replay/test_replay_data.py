"""Replay of the data: values as they were known then, whatever came after; and the file that is to blame."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import Feature
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.views import courier_window
from mlplatform.features.integrity import altered
from mlplatform.features.online.publish import publish_values
from mlplatform.features.removal import remove_revisions
from mlplatform.features.stage import Revision, Stage
from mlplatform.features.tables import Tables, day_range
from mlplatform.monitoring.row_digest import digests
from mlplatform.provenance.removed import mark_removed
from mlplatform.reproducibility.replay import view_values
from mlplatform.reproducibility.replay.rebuilt import Rebuilt
from mlplatform.reproducibility.replay.verdict import Replayed
from mlplatform_tests.fakes.replayed_world import BEFORE, DAY, TWO_BEFORE, World, flip_bit, moment, outcomes
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome, run_stage

COURIERS = DOMAIN.views[0]


@pytest.fixture
def world(own_trained: TrainedHome, tmp_path: Path) -> World:
    """One of its own for each test."""
    return World(own_trained, tmp_path / "metrics")


def revision_of(world: World, day: str, number: int = 1) -> tuple[Revision, Path]:
    """A revision of the couriers' table, and its file."""
    table = Tables(world.platform, DOMAIN).features(COURIERS)
    (found,) = (each for each in table.revisions([day]) if each.number == number)
    return found, Path(table.address(found))


def rewritten(rows: pl.DataFrame, **changed: pl.Expr) -> pl.DataFrame:
    """Rows that were logged otherwise: what was written says so too."""
    other = rows.with_columns(**changed)
    return other.with_columns(digest=digests(other))


def reasons(found: list[Replayed]) -> set[str]:
    """What is said of those that are not exact."""
    return {each.verdict.reason for each in found if each.verdict.cause}


def test_corrections_that_came_later_change_nothing(world: World) -> None:
    """The day before is corrected twice, and published, once its answers were given; those after it are exact too."""
    world.publish()
    world.serve(hours=range(12))
    world.at(13)
    world.correct(BEFORE)
    world.publish()
    world.serve(hours=range(14, 16))
    world.at(17)
    world.correct(BEFORE, seed=10)
    world.correct(TWO_BEFORE, seed=10)
    world.publish()
    world.serve(hours=range(18, 20))
    rows = world.rows()
    assert {each[0]["value_revision"] for each in rows["views"].to_list()} == {1, 2, 3}
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}


@pytest.mark.parametrize("by_view", [True, False], ids=["view by view", "as a whole"])
def test_what_was_on_its_way_may_have_been_missed(world: World, monkeypatch: pytest.MonkeyPatch, by_view: bool) -> None:
    """Answers of the minutes between a correction and its publication are exact, and say so.

    As a whole: where a view has texts only, of which the code makes inputs, no input tells of which state it was.
    """
    if not by_view:
        monkeypatch.setattr(Rebuilt, "_mixed", lambda _, values, *__: values)
    world.publish()
    requests = asked_on(world.platform, DAY, hours=range(12, 13))
    before = Gateway(world.platform, world.bundle)
    first = requests["at"].min()
    assert first is not None
    world.at(first.hour, first.minute)  # type: ignore[union-attr]  # a datetime
    world.correct(BEFORE)
    soon = requests.filter(pl.col("at") < first + timedelta(minutes=9))  # type: ignore[operator]
    assert soon.height > 1
    before.serve(soon, world.folder)
    found = world.replayed()
    assert outcomes(found) == {"exact": soon.height}
    assert any("a newer value was on its way to the online store" in each.verdict.notes for each in found)


def test_one_view_may_be_published_before_the_other(world: World) -> None:
    """Each is taken as it was when the request met it."""
    world.publish()
    requests = asked_on(world.platform, DAY, hours=range(12, 13))
    first = requests["at"].min()
    world.at(first.hour, first.minute)  # type: ignore[union-attr]
    world.correct(BEFORE)
    publish_values(world.platform, replace(DOMAIN, views=(COURIERS,), models=()))
    soon = requests.filter(pl.col("at") < first + timedelta(minutes=9))  # type: ignore[operator]
    Gateway(world.platform, world.bundle).serve(soon, world.folder)
    found = world.replayed()
    assert outcomes(found) == {"exact": soon.height}
    assert any(each.verdict.notes[-1].startswith("a newer value") for each in found)


def test_a_store_that_was_not_brought_up_to_date_is_the_cause(world: World) -> None:
    """Both revisions are named: what was served, and what was known."""
    world.publish()
    world.at(1)
    world.correct(BEFORE)
    world.serve(hours=range(12, 14))
    found = world.replayed()
    told = outcomes(found)
    assert set(told) <= {"diverged data", "exact"} and told["diverged data"] > 5
    name = "courier_deliveries_3d of synthetic/courier differs"
    wanted = f"{name}: revision 1 of {BEFORE} was served, revision 2 of {BEFORE} was known then"
    assert wanted in reasons(found)


def test_a_store_that_was_days_behind_is_the_cause(world: World) -> None:
    """What had expired there was known; where both had nothing, all is well."""
    world.publish(as_of="2024-01-10")
    world.serve()
    found = world.replayed()
    assert outcomes(found) == {"diverged data": len(found)}
    assert any("nothing was served, revision 1 of" in each for each in reasons(found))


def test_a_store_that_could_not_be_read_is_no_divergence(world: World) -> None:
    """The model answered without its views, and does so again."""
    gateway = Gateway(world.platform, world.bundle, online=str(world.folder / "empty"))
    world.serve(gateway=gateway)
    found = world.replayed()
    assert outcomes(found) == {"exact": len(found)}
    assert all("synthetic/courier could not be read" in each.verdict.notes for each in found)


def test_a_store_with_other_values_than_its_table_is_the_cause(world: World) -> None:
    """Under the same revision: nothing of the log is wrong, and nothing of the tables."""
    world.publish()
    _, path = revision_of(world, BEFORE)
    kept = path.read_bytes()
    pl.read_parquet(path).with_columns(courier_deliveries_3d=pl.lit(7, dtype=pl.Int32)).write_parquet(path)
    publish_values(world.platform, DOMAIN, as_of=BEFORE, full=True)
    path.write_bytes(kept)
    world.serve()
    found = world.replayed()
    told = outcomes(found)
    assert set(told) <= {"diverged data", "exact"} and told["diverged data"] > 5
    assert any("held another value of synthetic/courier than its table" in each for each in reasons(found))


def faster(facts: pl.DataFrame, at: object) -> pl.DataFrame:
    """Another way to count."""
    return courier_window(facts, at).with_columns(pl.col("courier_deliveries_3d") * 2)  # type: ignore[arg-type]


def changed_view(**changed: object) -> Domain:
    """The domain with other couriers."""
    return replace(DOMAIN, views=(replace(COURIERS, **changed), *DOMAIN.views[1:]))  # type: ignore[arg-type]


def test_a_model_of_an_older_view_is_replayed_by_what_the_store_kept_for_it(world: World) -> None:
    """The view is computed by other code from noon on; the model goes on with the values of before."""
    world.publish()
    world.serve(hours=range(10, 12))
    world.at(12)
    second = changed_view(function=faster)
    run_stage(world.platform, "feature_store", day_range(TWO_BEFORE, BEFORE), second)
    publish_values(world.platform, second, as_of=BEFORE)
    world.serve(hours=range(12, 16))
    rows = world.rows()
    assert revision_of(world, BEFORE, 2)[0].code_version != revision_of(world, BEFORE)[0].code_version
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}
    world.at(17)
    run_stage(world.platform, "feature_store", day_range(TWO_BEFORE, BEFORE))
    world.publish()
    world.serve(hours=range(18, 20))
    rows = world.rows()
    assert max(each[0]["value_revision"] for each in rows["views"].to_list()) == 3
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}


def test_a_view_that_lost_a_column_is_replayed_from_its_older_revisions(world: World) -> None:
    """The table goes on without it; the files of then hold it still."""
    world.publish()
    world.serve(hours=range(10, 12))
    world.at(12)
    names = ("courier_deliveries_3d", "courier_rides_3d")
    features = (
        *COURIERS.features[1:],
        Feature(name=names[1], dtype=pl.Float64(), meaning="Another name, and another type"),
    )
    second = changed_view(
        features=features,
        function=lambda facts, at: courier_window(facts, at).select(
            "courier", *(each.name for each in COURIERS.features[1:]), pl.col(names[0]).cast(pl.Float64).alias(names[1])
        ),
    )
    run_stage(world.platform, "feature_store", day_range(TWO_BEFORE, BEFORE), replace(second, models=()))
    assert revision_of(world, BEFORE, 2)
    rows = world.rows()
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}


def affected(world: World, day: str) -> int:
    """Answers that were told something of a day's revision."""
    return sum(
        each[0]["event_time"] == moment(0, 0, day) + timedelta(days=1) for each in world.rows()["views"].to_list()
    )


def test_one_bit_of_a_feature_file_is_found_and_named(world: World) -> None:
    """Whose values were read, and nobody else's: answers of the next day are given again."""
    world.publish()
    world.serve(hours=range(3))
    world.serve(hours=range(12, 14))
    _, path = revision_of(world, TWO_BEFORE)
    rows = world.rows()
    count = affected(world, TWO_BEFORE)
    assert 0 < count < rows.height
    held = pl.read_parquet(path)
    held.with_columns(courier_deliveries_3d=pl.col("courier_deliveries_3d") ^ 1).write_parquet(path)
    found = world.replayed(rows)
    told = outcomes(found)
    assert told == {"exact": rows.height - told["impossible data"], "impossible data": told["impossible data"]}
    assert count <= told["impossible data"] < rows.height
    assert all(path.name in each and "holds other bytes" in each for each in reasons(found))


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_file_that_cannot_be_read_costs_its_own_answers_only(world: World, damage: str) -> None:
    """Gone, cut off, or with a bit turned over where it says what it holds."""
    world.publish()
    world.serve(hours=range(3))
    world.serve(hours=range(12, 14))
    _, path = revision_of(world, TWO_BEFORE)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        flip_bit(path, at=0.9999)
    found = world.replayed()
    told = outcomes(found)
    assert told["impossible data"] >= affected(world, TWO_BEFORE) > 0 and told["exact"] > 10
    assert all(path.name in each for each in reasons(found))
    _, path = revision_of(world, BEFORE)
    path.unlink()
    found = world.replayed()
    assert (
        outcomes(found) == {"impossible data": len(found)}
        or outcomes(found)["impossible data"] > told["impossible data"]
    )


def test_the_file_of_a_revision_that_was_not_believed_then_does_not_matter(world: World) -> None:
    """Damage to a correction of later, or to what was corrected before, is no matter of an answer."""
    world.publish()
    world.serve(hours=range(10, 12))
    world.at(12)
    world.correct(BEFORE)
    world.publish()
    world.serve(hours=range(13, 15))
    rows = world.rows()
    _, path = revision_of(world, BEFORE, 2)
    flip_bit(path)
    found = world.replayed(rows)
    assert {each.verdict.outcome for each in found if each.received < moment(12)} == {"exact"}
    late = [each for each in found if each.received > moment(12)]
    assert {each.verdict.cause for each in late} == {"data"}


def test_what_was_removed_by_policy_is_told_as_that(world: World) -> None:
    """A revision that was superseded, and then removed; answers that were told nothing of it are given again."""
    world.publish()
    world.serve(hours=range(10, 12))
    world.at(12)
    world.correct(BEFORE)
    world.publish()
    world.serve(hours=range(13, 15))
    rows = world.rows()
    early = rows.filter(pl.col("received") < moment(12)).height
    assert 0 < early < rows.height
    table = Tables(world.platform, DOMAIN).features(COURIERS)
    assert remove_revisions(table, {(BEFORE, 1): "it was removed by policy on 2024-05-01"}) == 1
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height - early, "impossible removed": early}
    assert reasons(found) == {"it was removed by policy on 2024-05-01"}


def test_a_bundle_that_was_removed_by_policy_is_told_as_that(world: World) -> None:
    """And one that is there is replayed, though a mark was left for it."""
    world.publish()
    world.serve(hours=range(12, 13))
    mark_removed(world.bundle.folder, "the bundle was removed by policy")
    assert set(outcomes(world.replayed())) == {"exact"}
    world.bundle.folder.rename(world.folder / "elsewhere")
    found = world.replayed()
    assert set(outcomes(found)) == {"impossible removed"}
    assert reasons(found) == {"the bundle was removed by policy"}


@pytest.mark.parametrize("removed", [TWO_BEFORE, BEFORE])
def test_a_removal_hides_no_store_that_stayed_behind(world: World, removed: str) -> None:
    """Neither of a revision of the same number of another day, nor of one that was superseded hours before."""
    world.publish()
    world.at(0, 20)
    world.correct(TWO_BEFORE)
    world.publish()
    world.at(1)
    world.correct(BEFORE)
    world.serve(hours=range(12, 13))
    before = outcomes(world.replayed())
    assert before["diverged data"] > 5
    table = Tables(world.platform, DOMAIN).features(COURIERS)
    assert remove_revisions(table, {(removed, 1): "removed by policy: superseded long ago"}) == 1
    assert outcomes(world.replayed()) == before


def test_what_is_removed_amid_a_replay_is_told_as_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the revisions were listed, and before they are read."""
    world.publish()
    world.serve(hours=range(10, 12))
    world.at(12)
    world.correct(BEFORE)
    rows = world.rows()
    table = Tables(world.platform, DOMAIN).features(COURIERS)
    plain = altered

    def removing(stage: Stage, revisions: Iterable[Revision]) -> dict[tuple[str, int], str]:
        found = plain(stage, revisions)
        remove_revisions(table, {(BEFORE, 1): "removed by policy on 2024-05-01"})
        return found

    monkeypatch.setattr(view_values, "altered", removing)
    found = world.replayed(rows)
    assert outcomes(found) == {"impossible removed": rows.height}
    assert reasons(found) == {"removed by policy on 2024-05-01"}


def test_what_lies_between_two_answers_that_are_far_apart_is_not_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample over all ages costs what its answers need."""
    world.publish()
    world.serve(hours=range(12, 13))
    rows = world.rows()
    old = rewritten(
        rows.head(1), at=pl.col("at") - timedelta(days=14), received=pl.col("received") - timedelta(days=14)
    )
    days: set[str] = set()
    plain = Stage.read

    def read(self: Stage, *args: Any, **more: Any) -> pl.DataFrame:
        days.update(more.get("numbers") or {})
        return plain(self, *args, **more)

    monkeypatch.setattr(Stage, "read", read)
    assert outcomes(world.replayed(rows.tail(2))) == {"exact": 2}
    of_one = len(days)
    days.clear()
    assert world.replayed(pl.concat([old, rows.tail(2)]))[1].verdict.outcome == "exact"
    assert {BEFORE, "2024-01-05"} < days and len(days) <= 2 * of_one
