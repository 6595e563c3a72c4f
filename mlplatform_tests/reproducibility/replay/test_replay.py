"""Replay: what a gateway answered is given again to the bit, and what was tampered with is named."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DataError
from mlplatform.monitoring import refusals
from mlplatform.monitoring.row_digest import digests
from mlplatform.provenance.computing import computing
from mlplatform.registry.candidate import bundle_of, load_candidate
from mlplatform.reproducibility.replay import rebuilt
from mlplatform.reproducibility.replay.replay import replay
from mlplatform_tests.fakes.replayed_world import World, flip_bit, only, outcomes
from mlplatform_tests.fakes.served_day import Gateway
from mlplatform_tests.fakes.synthetic_home import TrainedHome, train


@pytest.fixture(scope="module")
def served(trained: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A shop that has answered; for reading only."""
    folder = tmp_path_factory.mktemp("served")
    world = World(trained.copied_to(folder / "home"), folder / "metrics")
    world.publish()
    world.serve()
    return world


@pytest.fixture
def world(own_trained: TrainedHome, tmp_path: Path) -> World:
    """One of its own for each test, that has not answered yet."""
    made = World(own_trained, tmp_path / "metrics")
    made.publish()
    return made


def unverified(rows: pl.DataFrame, **changed: pl.Expr) -> pl.DataFrame:
    """Rows without digests, as an older log has them, with other values."""
    return rows.with_columns(digest=pl.lit(None, dtype=pl.String), **changed)


def rewritten(rows: pl.DataFrame, **changed: pl.Expr) -> pl.DataFrame:
    """Rows that were logged otherwise: what was written says so too."""
    other = rows.with_columns(**changed)
    return other.with_columns(digest=digests(other))


def with_versions(**changed: str | None) -> pl.Expr:
    """What another process would have said that it computes with."""
    facts = {name: fact for name, fact in {**computing(), **changed}.items() if fact is not None}
    return pl.lit(json.dumps(facts, sort_keys=True, separators=(",", ":")))


def nudged(by: float) -> pl.Expr:
    """Scores that are a little off."""
    return pl.col("scores").list.eval(pl.element() + by)


def test_what_was_answered_is_given_again_to_the_bit(served: World) -> None:
    """All answers of some hours, in their order, by the tables, the bundle and the log alone."""
    rows = served.rows()
    found = served.replayed(rows)
    assert outcomes(found) == {"exact": rows.height} and rows.height > 10
    assert [each.request_id for each in found] == rows["request_id"].to_list()
    assert {(each.model, each.source, each.difference) for each in found} == {("late_order", "model", 0.0)}
    assert rows["digest"].null_count() == 0 and rows["features"].null_count() == 0


def test_nothing_is_replayed_as_nothing(served: World) -> None:
    """No rows, no verdicts."""
    assert served.replayed(served.rows().clear()) == []


def test_what_is_declared_today_does_not_matter(served: World) -> None:
    """A domain whose views, features and models were all taken away since."""
    emptied = replace(DOMAIN, models=(), views=(), on_demand=(), fitted=())
    rows = served.rows()
    assert outcomes(replay(served.platform, emptied, rows)) == {"exact": rows.height}


def test_models_of_every_task_are_replayed(world: World) -> None:
    """Numbers and classes as well as probabilities, in one log and one call, in its order."""
    kinds = ("minutes_to_door", "speed")
    for name in kinds:
        model = DOMAIN.model(name)
        world.at(0, 10, "2024-02-01")
        made = train(world.platform, model)
        digest = load_candidate(world.platform.training("synthetic", name, made.key)).manifest
        world.at(0, 10)
        world.serve(gateway=Gateway(world.platform, bundle_of(world.platform, digest)), hours=range(12, 13))
    world.serve(hours=range(12, 13))
    rows = world.rows()
    assert rows["model"].n_unique() == 3
    assert rows.filter(model="speed")["scores"].list.len().unique().to_list() == [3]
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height}
    assert [each.model for each in found] == rows["model"].to_list()
    number = rows.filter(model="minutes_to_door").head(1)
    told = only(world.replayed(unverified(number, prediction=pl.lit("17.5"))))
    assert (told.outcome, told.cause) == ("diverged", "answer") and "17.5" in told.reason


@pytest.mark.parametrize(
    "changed",
    [
        {"probability": pl.col("probability") + 0.001},
        {"features": pl.col("features").list.eval(pl.element() + 1)},
        {"plan": pl.lit("1-abcd")},
        {"request": pl.col("request").str.replace('"items": ', '"items": 1')},
    ],
    ids=["answer", "vector", "plan", "request"],
)
def test_a_row_that_was_altered_is_found_by_its_digest(served: World, changed: dict[str, pl.Expr]) -> None:
    """Whatever was altered in it, and those beside it stand."""
    rows = served.rows()
    altered = pl.concat([rows.head(1).with_columns(**changed), rows.tail(-1)])
    found = served.replayed(altered)
    assert outcomes(found) == {"exact": rows.height - 1, "impossible record": 1}
    assert "digest" in found[0].verdict.reason


def test_what_does_not_fit_together_shows_without_a_digest(served: World) -> None:
    """A vector, a score, an answer and a request of an older log, each altered alone."""
    row = served.rows().head(1)
    place = served.bundle.manifest.features.index("order_distance")
    vector = row["features"].to_list()[0]
    vector[place] += 20.0
    told = only(served.replayed(unverified(row, features=pl.lit(pl.Series([vector], dtype=pl.List(pl.Float32))))))
    assert (told.outcome, told.cause) == ("diverged", "record") and "order_distance" in told.reason
    told = only(served.replayed(unverified(row, scores=nudged(0.01))))
    assert (told.outcome, told.cause) == ("diverged", "record") and "the score was" in told.reason
    told = only(served.replayed(unverified(row, prediction=1 - pl.col("prediction").cast(pl.Int64))))
    assert (told.outcome, told.cause) == ("diverged", "answer") and "prediction was told as" in told.reason
    told = only(served.replayed(unverified(row, needs_review=~pl.col("needs_review"))))
    assert (told.outcome, told.cause) == ("diverged", "answer")
    told = only(served.replayed(unverified(row, request=pl.lit("no JSON"))))
    assert (told.outcome, told.cause) == ("impossible", "record")
    told = only(served.replayed(unverified(row, features=pl.col("features").list.head(2))))
    assert (told.outcome, told.cause) == ("impossible", "record")


def test_a_score_that_no_known_version_gives_is_told(served: World) -> None:
    """The row is what was written, and the same versions give another score: something else scored there."""
    row = rewritten(served.rows().head(1), scores=nudged(0.01), probability=pl.col("probability") + 0.01)
    told = served.replayed(row)[0]
    assert (told.verdict.outcome, told.verdict.cause) == ("diverged", "environment")
    assert "look at what scored there" in told.verdict.reason and told.difference == pytest.approx(0.01)


def test_last_bits_of_other_versions_are_within_tolerance(served: World) -> None:
    """The versions are named; the same bits of other versions are exact, with a note."""
    row = served.rows().head(1)
    nudge = pl.col("probability") + 1e-9
    other = rewritten(row, computing=with_versions(xgboost="2.0.0"), scores=nudged(1e-9), probability=nudge)
    other = rewritten(other, confidence=pl.max_horizontal("probability", 1 - pl.col("probability")))
    told = only(served.replayed(other))
    assert (told.outcome, told.cause) == ("within_tolerance", "environment")
    assert f"xgboost 2.0.0 answered, {computing()['xgboost']} replays" in told.reason
    same = only(served.replayed(rewritten(row, computing=with_versions(xgboost="2.0.0"))))
    assert (same.outcome, same.cause) == ("exact", None) and any("xgboost 2.0.0" in each for each in same.notes)
    far = only(served.replayed(rewritten(other, scores=nudged(0.1))))
    assert (far.outcome, far.cause) == ("diverged", "environment")


def test_a_decision_that_last_bits_turn_is_no_small_difference(served: World) -> None:
    """The score is within tolerance, but the caller was told the other class."""
    bundle, row = served.bundle, served.rows().head(1)
    score = float(row["scores"][0][0])
    near = replace(bundle.model, decision=replace(bundle.model.decision, value=score))  # type: ignore[type-var]
    begins = 'Threshold(value=0.5, reason="both mistakes cost'
    edge = served.variant(("models.py", begins, begins.replace("0.5", repr(score))), model=near)
    other = rewritten(
        row,
        manifest=pl.lit(edge.digest),
        computing=with_versions(xgboost="2.0.0"),
        scores=nudged(-1e-9),
        probability=pl.col("probability") - 1e-9,
        prediction=pl.lit("0"),
    )
    other = rewritten(other, confidence=pl.max_horizontal("probability", 1 - pl.col("probability")))
    told = only(served.replayed(other))
    assert (told.outcome, told.cause) == ("diverged", "environment")


def test_another_device_is_named_before_other_versions(served: World) -> None:
    """A card answered, and the CPU replays: the last bits may differ."""
    row = rewritten(
        served.rows().head(1),
        device=pl.lit("cuda"),
        computing=with_versions(xgboost="2.0.0"),
        scores=nudged(1e-9),
        probability=pl.col("probability") + 1e-9,
    )
    row = rewritten(row, confidence=pl.max_horizontal("probability", 1 - pl.col("probability")))
    told = only(served.replayed(row))
    assert (told.outcome, told.cause) == ("within_tolerance", "device")
    assert "cuda answered, cpu replays" in told.reason


def test_a_row_that_does_not_say_what_computed_it_is_replayed_with_a_note(served: World) -> None:
    """As logs of earlier versions do not, which lack the columns altogether."""
    rows = served.rows()
    found = served.replayed(rows.drop("computing", "digest"))
    assert outcomes(found) == {"exact": rows.height}
    assert all("the row does not say what computed it" in each.verdict.notes for each in found)


@pytest.mark.parametrize("name", ["model.ubj", "manifest.yaml", "calibration.json", "code/synthetic/views.py"])
def test_one_bit_of_a_bundle_is_found_and_named(world: World, name: str) -> None:
    """Nothing is replayed by it, whether the file takes part or not."""
    world.serve(hours=range(12, 13))
    assert set(outcomes(world.replayed())) == {"exact"}
    flip_bit(world.bundle.folder / name)
    found = world.replayed()
    assert outcomes(found) == {"impossible bundle": len(found)}
    assert name in found[0].verdict.reason


def test_a_bundle_that_is_gone_is_told(world: World) -> None:
    """Its answers alone are lost."""
    world.serve(hours=range(12, 13))
    other = world.variant()
    world.serve(gateway=Gateway(world.platform, other), hours=range(13, 14))
    rows = world.rows()
    other.folder.rename(world.folder / "elsewhere")
    lost = rows.filter(manifest=other.digest).height
    assert outcomes(world.replayed(rows)) == {"exact": rows.height - lost, "impossible bundle": lost}


def test_a_manifest_of_another_model_is_a_wrong_record(served: World) -> None:
    """The row names a manifest that never answered for this model."""
    told = only(served.replayed(unverified(served.rows().head(1), model=pl.lit("speed"))))
    assert (told.outcome, told.cause) == ("impossible", "record") and "synthetic/late_order" in told.reason


def test_feature_code_that_gives_something_else_now_is_the_cause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that reads its surroundings: the vector was right then. Where it raises now, that is told too."""
    reads = (
        'pl.col("items").cast(pl.Int32)',
        '(pl.col("items") + int(__import__("os").environ["MOOD"])).cast(pl.Int32)',
    )
    monkeypatch.setenv("MOOD", "1")
    moody = world.variant(("views.py", *reads))
    world.serve(gateway=Gateway(world.platform, moody), hours=range(12, 13))
    assert set(outcomes(world.replayed())) == {"exact"}
    monkeypatch.setenv("MOOD", "2")
    found = world.replayed()
    assert outcomes(found) == {"diverged code": len(found)}
    assert "order_items was" in found[0].verdict.reason
    monkeypatch.setenv("MOOD", "none")
    found = world.replayed()
    assert outcomes(found) == {"diverged code": len(found)}
    assert "ValueError" in found[0].verdict.reason
    monkeypatch.setenv("MOOD", "2")
    later = world.replayed(rewritten(world.rows(), computing=with_versions(polars="1.30.0")))
    assert {each.verdict.cause for each in later} == {"environment"}


def test_one_request_that_the_code_refuses_costs_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found among the others by halves."""
    monkeypatch.setenv("REFUSED", "0")
    begins = "    return requests.select(\n        order_distance"
    refuses = (
        '    if int(__import__("os").environ["REFUSED"]) in requests["order_id"]:\n        raise ValueError("not it")\n'
    )
    picky = world.variant(("views.py", begins, refuses + begins))
    world.serve(gateway=Gateway(world.platform, picky))
    rows = world.rows()
    monkeypatch.setenv("REFUSED", rows["request_id"][3][1:])
    found = world.replayed(rows)
    assert outcomes(found) == {"diverged code": 1, "exact": rows.height - 1}
    assert found[3].verdict.cause == "code" and "not it" in found[3].verdict.reason


def test_scores_of_a_worker_that_lies_are_found(world: World) -> None:
    """A worker that holds another booster answers with honest looks."""
    world.serve(gateway=Gateway(world.platform, world.bundle, said=lambda scores: np.clip(scores + 0.05, 0, 1)))
    found = world.replayed()
    assert outcomes(found) == {"diverged environment": len(found)}


ODD: dict[str, object] = {
    "request": None,
    "source": None,
    "at": None,
    "arm": None,
    "received": None,
    "request_id": None,
    "manifest": None,
    "model": None,
    "features": None,
    "views": None,
    "scores": None,
    "device": None,
    "degraded": None,
    "needs_review": None,
    "prediction": None,
    "computing": "{",
    "plan": "x",
}


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("name", list(ODD))
def test_one_odd_row_does_not_end_the_replay_of_the_others(served: World, name: str, written: bool) -> None:
    """Whether its digest shows that it was altered, or it was written so."""
    rows = served.rows().head(4)
    odd = rows.head(1).with_columns(pl.lit(ODD[name], dtype=rows.schema[name]).alias(name))
    if written:
        odd = odd.with_columns(digest=digests(odd))
    found = served.replayed(pl.concat([odd, rows.tail(3)]))
    assert outcomes(found[1:]) == {"exact": 3}
    if not written:
        assert outcomes(found[:1]) == {"impossible record": 1}
    elif name in ("request", "source", "at", "arm", "received", "request_id"):
        assert outcomes(found[:1]) == {"impossible record": 1} and name in found[0].verdict.reason


@pytest.mark.parametrize("year", [1, 9999])
def test_a_request_of_another_age_does_not_end_the_replay_of_the_others(served: World, year: int) -> None:
    """Of the year 1 no time to live can be taken."""
    rows = served.rows().head(4)
    odd = rewritten(rows.head(1), at=pl.lit(datetime(year, 1, 1, tzinfo=UTC), dtype=rows.schema["at"]))
    found = served.replayed(pl.concat([odd, rows.tail(3)]))
    assert outcomes(found[1:]) == {"exact": 3} and found[0].verdict.cause is not None


def test_code_that_refuses_every_request_is_not_asked_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A while by halves, and then those that are left are told what their neighbours were."""
    world.serve(hours=range(24))
    calls: list[int] = []

    def refusing(*_: object) -> pl.DataFrame:
        calls.append(1)
        raise DataError("not it")

    monkeypatch.setattr(rebuilt, "given", refusing)
    monkeypatch.setattr(refusals, "refusals_at_most", 16)
    found = world.replayed()
    assert outcomes(found) == {"diverged code": len(found)}
    assert len(calls) <= 2 * 16 + 1 < len(found)
