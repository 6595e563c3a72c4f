"""Replay of what the model did not answer, or not anew: each tier of the fallback chain, repeated answers, shadows."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.column import Column
from mlplatform.domain.model import Serving
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.tombstones import Tombstone, bury
from mlplatform.monitoring.pickup import log_table
from mlplatform.monitoring.row_digest import digests
from mlplatform.registry.bundle import Bundle
from mlplatform.reproducibility.replay import answered, repeated
from mlplatform.reproducibility.replay.logged import Asked, asked
from mlplatform.scoring.postprocess import Answers, plain_answers
from mlplatform_tests.fakes import served_day
from mlplatform_tests.fakes.logged_answers import log_answers
from mlplatform_tests.fakes.replayed_world import BEFORE, DAY, World, flip_bit, only, outcomes
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome
from serving.batch import Scores
from serving.routing import Route


@pytest.fixture
def world(own_trained: TrainedHome, tmp_path: Path) -> World:
    """One of its own for each test, published."""
    made = World(own_trained, tmp_path / "metrics")
    made.publish()
    return made


def declared(world: World, serving: Serving, text: str) -> Bundle:
    """The model with another service."""
    gate = "from mlplatform.domain.model import Gate,"
    return world.variant(
        ("models.py", gate, gate.replace("Gate", "Serving, Gate")),
        ("models.py", "    rules=guessed_late,\n", f"    rules=guessed_late,\n    serving={text},\n"),
        model=replace(world.bundle.model, serving=serving),
    )


def gone(world: World, bundle: Bundle | None = None) -> Gateway:
    """A gateway whose model workers are gone."""
    return Gateway(world.platform, bundle or world.bundle, said=None)


def rewritten(rows: pl.DataFrame, **changed: pl.Expr) -> pl.DataFrame:
    """Rows that were logged otherwise: what was written says so too."""
    other = rows.with_columns(**changed)
    return other.with_columns(digest=digests(other))


def test_the_simple_model_answers_again_from_the_features(world: World) -> None:
    """And an answer of it that is another one is found."""
    world.serve(gateway=gone(world))
    rows = world.rows()
    assert set(rows["source"]) == {"simple_model"} and rows["scores"].null_count() == rows.height
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height}
    assert "answered by simple_model: the model did not answer" in found[0].verdict.notes
    other = rewritten(rows.head(1), probability=pl.col("probability") / 2)
    told = world.replayed(other)[0]
    assert (told.verdict.outcome, told.verdict.cause) == ("diverged", "answer") and told.difference > 0
    assert "simple_model answered otherwise: probability" in told.verdict.reason


def test_the_rules_answer_again_from_the_request(world: World) -> None:
    """By the code of the bundle, whatever the features."""
    bundle = declared(world, Serving(tiers=("rules", "low_confidence")), 'Serving(tiers=("rules", "low_confidence"))')
    world.serve(gateway=gone(world, bundle))
    rows = world.rows()
    assert set(rows["source"]) == {"rules"}
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}
    told = only(world.replayed(rewritten(rows.head(1), source=pl.lit("simple_model"))))
    assert (told.outcome, told.cause) == ("diverged", "answer")


def test_requests_whose_time_was_up_are_answered_again_without_features(world: World) -> None:
    """They never had any."""
    world.serve(late=True)
    rows = world.rows()
    assert set(rows["source"]) == {"rules"} and rows["features"].null_count() == rows.height
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}


def test_an_answer_of_low_confidence_is_a_constant(world: World) -> None:
    """Nothing stands behind it; and whoever was told more than nothing by it was told otherwise."""
    bundle = declared(world, Serving(tiers=()), "Serving(tiers=())")
    world.serve(gateway=gone(world, bundle))
    rows = world.rows()
    assert set(rows["source"]) == {"low_confidence"}
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}
    told = only(world.replayed(rewritten(rows.head(1), confidence=pl.lit(0.9))))
    assert (told.outcome, told.cause) == ("diverged", "answer")


def test_a_score_that_was_none_is_given_again_with_what_answered_instead(world: World) -> None:
    """NaN among honest scores: the log has what the worker said, and the booster says something else."""

    def odd(scores: Scores) -> Scores:
        told = scores.copy()
        told[0] = np.nan
        return told

    world.serve(gateway=Gateway(world.platform, world.bundle, said=odd))
    rows = world.rows()
    assert set(rows["source"]) == {"simple_model", "model"}
    found = world.replayed(rows)
    wrong = [each for each in found if each.source == "simple_model"]
    assert outcomes(found) == {"diverged environment": len(wrong), "exact": rows.height - len(wrong)}
    assert "the score was nan" in wrong[0].verdict.reason


def again(requests: pl.DataFrame, minutes: int) -> pl.DataFrame:
    """The same requests some minutes later."""
    return requests.with_columns(pl.col("at") + timedelta(minutes=minutes))


def answered_and_repeated(world: World, **gateway: Any) -> pl.DataFrame:
    """The requests of an hour, answered by the model and half an hour later, without it, from the cache."""
    remembering = Gateway(world.platform, world.bundle, remembers=1000, **gateway)
    requests = asked_on(world.platform, DAY, hours=range(12, 13))
    remembering.serve(requests, world.folder)
    remembering.workers.said = None
    remembering.serve(again(requests, 30), world.folder, ids=[f"later {row}" for row in range(requests.height)])
    return requests


def test_a_cached_answer_is_traced_to_the_one_it_repeats(world: World) -> None:
    """It is worth what that is worth; its request may be written otherwise."""
    requests = answered_and_repeated(world)
    rows = world.rows()
    cached = rows.filter(source="cached")
    assert cached.height == requests.height
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height}
    notes = [note for each in found if each.source == "cached" for note in each.verdict.notes]
    assert sum(note.startswith("it repeats the answer to o") for note in notes) == cached.height
    otherwise = rewritten(cached.head(1), request=pl.col("request").str.replace_all(": ", ":"))
    assert otherwise["request"][0] != cached["request"][0]
    assert only(world.replayed(otherwise)).outcome == "exact"
    other = only(world.replayed(rewritten(cached.head(1), probability=pl.lit(0.123))))
    assert (other.outcome, other.cause) == ("diverged", "answer") and "it should repeat the answer to" in other.reason


def test_a_cached_answer_whose_origin_is_not_given_again_is_not_either(world: World) -> None:
    """The cause is that of the answer it repeats."""
    requests = answered_and_repeated(world, said=lambda scores: np.clip(scores + 0.05, 0, 1))
    found = world.replayed(world.rows().filter(source="cached"))
    assert outcomes(found) == {"diverged environment": requests.height}
    assert all(each.verdict.reason.startswith("it repeats the answer to o") for each in found)


def test_a_cached_answer_whose_origin_is_not_in_the_log_cannot_be_traced(world: World) -> None:
    """Unless its day was removed by policy; and one of another time than it may be kept is none."""
    requests = answered_and_repeated(world)
    old = rewritten(world.rows().filter(source="cached"), received=pl.col("received") + timedelta(hours=3))
    found = world.replayed(old)
    assert outcomes(found) == {"impossible record": requests.height}
    stone = Tombstone(
        kind="answers", name=DAY, content="", rows=1, policy="old ones", actor="ann", removed_at=world.platform.clock()
    )
    bury(world.platform, DOMAIN, [stone])
    assert outcomes(world.replayed(old)) == {"impossible removed": requests.height}


def test_a_cached_answer_whose_origin_lies_in_a_damaged_file_is_told_so(world: World) -> None:
    """The file is named; the other answers of the call are replayed."""
    requests = answered_and_repeated(world)
    rows = world.rows()
    path = min(
        Path(log_table(world.platform, DOMAIN)).glob("day=*/*.parquet"), key=lambda each: each.stat().st_mtime_ns
    )
    path.write_bytes(path.read_bytes()[:-40])
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": requests.height, "impossible record": requests.height}
    assert all(path.name in each.verdict.reason for each in found if each.source == "cached")


def test_a_repeated_answer_is_traced_too(world: World) -> None:
    """Where the model declares that it may be given again for a while."""
    bundle = declared(world, Serving(cache_for=timedelta(minutes=20)), "Serving(cache_for=timedelta(minutes=20))")
    gateway = Gateway(world.platform, bundle, remembers=1000)
    requests = asked_on(world.platform, DAY, hours=range(12, 13))
    gateway.serve(requests, world.folder)
    gateway.serve(
        again(requests, 10), world.folder, ids=[f"again {row}" for row in range(requests.height)], repeating=True
    )
    rows = world.rows()
    repeated = rows.filter(pl.col("features").is_null())
    assert repeated.height == requests.height and set(repeated["source"]) == {"model"}
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}
    flip_bit(bundle.folder / "model.ubj")
    assert outcomes(world.replayed(repeated)) == {"impossible bundle": requests.height}


def test_a_request_that_came_in_a_table_is_read_again(world: World) -> None:
    """Its columns were written as JSON when they were picked up, times and numbers to the last bit."""
    world.serve(as_table=True)
    rows = world.rows()
    assert outcomes(world.replayed(rows)) == {"exact": rows.height}


def test_rows_of_the_shadow_are_replayed_as_its_own(world: World) -> None:
    """By its own manifest, whose code may be another."""
    other = world.variant(("views.py", 'pl.col("items").cast', '(pl.col("items") * 2).cast'))
    world.serve(hours=range(12, 13))
    requests = asked_on(world.platform, DAY, hours=range(12, 13))
    routes = [Route("shadow", "", 0.0)] * requests.height
    Gateway(world.platform, other).serve(requests, world.folder, routes=routes)
    rows = world.rows()
    assert rows.filter(arm="shadow").height == requests.height
    found = world.replayed(rows)
    assert outcomes(found) == {"exact": rows.height}
    assert {(each.arm, each.manifest) for each in found} == {
        ("champion", world.bundle.digest),
        ("shadow", other.digest),
    }


def test_the_newest_answer_is_repeated_however_its_request_was_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one to a request that was written alike, and told otherwise, is not what was remembered."""
    gateway = Gateway(world.platform, world.bundle, remembers=1000)
    requests = asked_on(world.platform, DAY, hours=range(12, 13)).head(1)
    gateway.serve(requests, world.folder, ids=["older"])
    world.at(12, 15)
    world.correct(BEFORE)
    world.publish()
    gateway = Gateway(world.platform, world.bundle, remembers=1000)
    with monkeypatch.context() as patch:
        patch.setattr(served_day, "json", SimpleNamespace(dumps=partial(json.dumps, separators=(",", ":"))))
        gateway.serve(again(requests, 30), world.folder, ids=["newer"])
    gateway.workers.said = None
    gateway.serve(again(requests, 40), world.folder, ids=["repeated"])
    told = dict(world.rows().select("request_id", "probability").iter_rows())
    assert told["older"] != told["newer"] == told["repeated"]
    assert world.rows()["request"].n_unique() == 2
    found = world.replayed()
    assert outcomes(found) == {"exact": 3}
    assert "it repeats the answer to newer" in found[-1].verdict.notes


def test_answers_between_repeated_ones_that_are_far_apart_are_not_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each day what may be repeated on it, and of that what is compared."""
    manifest = world.bundle.digest
    for day in range(1, 11):
        log_answers(world.platform, f"2024-01-{day:02d}", 50, manifest=manifest)
    for day in (1, 10):
        log_answers(world.platform, f"2024-01-{day:02d}", 1, manifest=manifest, source="cached")
    looked_at: list[pl.DataFrame] = []

    def read(rows: pl.DataFrame, columns: Sequence[Column]) -> Asked:
        looked_at.append(rows)
        return asked(rows, columns)

    monkeypatch.setattr(repeated, "asked", read)
    rows = pl.concat([world.rows(f"2024-01-{day:02d}").filter(source="cached") for day in (1, 10)])
    nothing = pl.lit(None, dtype=pl.List(pl.Float32))
    world.replayed(rewritten(rows, features=nothing, request=pl.lit('{"order_id": 77}')))
    assert max(each.height for each in looked_at) == 50
    assert not any({"features", "scores", "views"} & set(each.columns) for each in looked_at)


def test_scores_that_are_none_cost_no_look_at_each_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names them, and the others are told at once."""
    scores = np.full((1000, 1), 0.3)
    scores[[5, 7]] = [[np.nan], [2.0]]
    calls: list[int] = []

    def told(*args: Any) -> Answers:
        calls.append(1)
        return plain_answers(*args)

    monkeypatch.setattr(answered, "plain_answers", told)
    found = answered.answers_of(world.bundle, scores)
    assert [row for row, each in enumerate(found) if each is None] == [5, 7] and len(calls) == 3
    assert answered.answers_of(world.bundle, np.full((2, 1), np.nan)) == [None, None]
