"""Answers scored again with their own bundle: what differs is found, by how much, and nothing else is said to."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.model import XGBoostSettings
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.online.publish import publish_values
from mlplatform.monitoring.behaviour.day import DayBehaviour, behaviour_of_day
from mlplatform.monitoring.behaviour.rescored import (
    Floats,
    Rescored,
    beside_bundle,
    rescored_finding,
    rescored_of_day,
    rows_rescored,
)
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.pickup import logged, pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.provenance.segments import Segments
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.booster import Matrix, matrix, raw_scores
from mlplatform.scoring.calibration import Calibration
from mlplatform.training.fit import fit
from mlplatform_tests.fakes import tiny_domain
from mlplatform_tests.fakes.behaved import batch_of_day
from mlplatform_tests.fakes.declared_models import model_of
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome

DAY = "2024-01-20"
MIDNIGHT = 1_705_708_800_000_000_000
"""Of `DAY`, nanoseconds."""


@pytest.fixture
def bundle(own_trained: TrainedHome) -> Bundle:
    """The one that serves."""
    return bundle_of(own_trained.platform, own_trained.entry.to_manifest)


def vectors_of(bundle: Bundle, rows: int) -> Matrix:
    """Such that their scores differ."""
    made = np.random.default_rng(3).normal(2.0, 3.0, (rows, len(bundle.manifest.features))).astype(np.float32)
    made[::5, 0] = np.nan
    return made


def scores_of(bundle: Bundle, vectors: Matrix) -> Floats:
    """What a model worker gives."""
    return bundle.scores(pl.DataFrame(vectors, schema=list(bundle.manifest.features)))


def log(home: TrainedHome, scores: Floats, vectors: Matrix, **changes: Any) -> None:
    """Answers with their vectors, in the table."""
    told = {"manifest": home.entry.to_manifest, "features": vectors.tobytes()} | changes
    segments = Segments(log_folder(home.platform.home, DOMAIN.name), size=1 << 20, spares=1)
    assert segments.append(encode(batch_of_day(scores, midnight=MIDNIGHT, **told)), len(scores))
    segments.close()
    pick_up(home.platform, DOMAIN)


def differ(home: TrainedHome) -> list[Finding]:
    """What the asset finds of it."""
    return [each for each in judged(home).findings if each.rule == "scores_differ"]


def judged(home: TrainedHome) -> DayBehaviour:
    """The day."""
    return behaviour_of_day(home.platform, DOMAIN, DAY)


def test_what_was_served_is_scored_again_to_the_bit(own_trained: TrainedHome, bundle: Bundle, tmp_path: Path) -> None:
    """Through the real predictor and the log, calibration included."""
    clock = own_trained.platform.clock
    assert isinstance(clock, Clock)
    clock.now = datetime(2024, 1, 20, 0, 10, tzinfo=UTC)
    publish_values(own_trained.platform, DOMAIN, as_of="2024-01-19")
    asked = asked_on(own_trained.platform, DAY)
    Gateway(own_trained.platform, bundle).serve(asked, tmp_path / "metrics")
    (told,) = judged(own_trained).rescored
    assert (told.rows, told.answers, told.differing, told.not_compared) == (asked.height, asked.height, 0, "")
    assert differ(own_trained) == []


def test_a_gateway_whose_scores_are_off_is_found(own_trained: TrainedHome, bundle: Bundle) -> None:
    """Half of the answers come from it: how many, by how much, and from where."""
    vectors = vectors_of(bundle, 60)
    scores = scores_of(bundle, vectors)
    log(own_trained, scores[:30], vectors[:30], gateway="sound")
    off = 1 / (1 + np.exp(-(np.log(scores / (1 - scores)) + 0.7)))
    log(own_trained, off[30:], vectors[30:], gateway="odd", request_id=[f"o{row}" for row in range(30)])
    (found,) = differ(own_trained)
    assert (found.layer, found.subject, found.harmful, found.manifest) == (
        "model_behaviour",
        "synthetic/late_order",
        True,
        bundle.digest,
    )
    assert "30 of 60 answers" in found.summary and "gateways odd)" in found.summary
    assert found.figures["largest"] == np.abs(off - scores)[30:].max()
    assert found.figures["value"] == 0.5


def test_the_last_bit_is_shown_and_wakes_nobody(own_trained: TrainedHome, bundle: Bundle) -> None:
    """It costs no good prediction, and says that something else scores there."""
    vectors = vectors_of(bundle, 20)
    scores = np.nextafter(scores_of(bundle, vectors), 1)
    log(own_trained, scores, vectors)
    (found,) = differ(own_trained)
    assert not found.harmful and "20 of 20" in found.summary and "another release" in found.summary


def test_another_device_is_held_to_the_tolerance(tmp_path: Path) -> None:
    """A model of the card is scored again on the CPU, where there is no card."""
    bundle = tiny_domain.bundle_of(tmp_path / "bundles", tiny_domain.write_package(tmp_path, device="cuda"))
    vectors = vectors_of(bundle, 8)
    twin = tiny_domain.bundle_of(tmp_path / "twins", tiny_domain.write_package(tmp_path / "twin"))
    scores = scores_of(twin, vectors)
    near, far = (beside(bundle, vectors, scores + by, device="cuda") for by in (1e-6, 1e-3))
    assert (near.rows, near.differing) == (8, 0)
    assert (far.differing, far.wrong) == (8, 8)


def beside(bundle: Bundle, vectors: Matrix, scores: Any, *, device: str = "cpu") -> Rescored:
    """Rows of the log beside their bundle."""
    rows = pl.DataFrame(
        {
            "request_id": [f"r{row:03}" for row in range(len(vectors))],
            "gateway": "g",
            "device": device,
            "features": pl.Series(vectors).arr.to_list(),
            "scores": pl.Series(np.asarray(scores).reshape(len(vectors), -1)).arr.to_list(),
        }
    )
    return beside_bundle(Rescored(model="m", manifest="a", answers=len(vectors)), bundle, rows)


def test_several_classes_differ_where_one_of_them_does() -> None:
    """A row counts once."""
    told = np.random.default_rng(1)
    frame = pl.DataFrame({"a": told.normal(size=90), "b": told.normal(size=90)})
    booster = fit(frame, told.integers(0, 3, 90).astype(np.float64), model_of("multiclass"), XGBoostSettings(rounds=3))
    bundle: Any = SimpleNamespace(
        manifest=SimpleNamespace(features=("a", "b"), device="cpu"),
        model=model_of("multiclass"),
        booster=booster,
        calibration=Calibration(),
    )
    scores = raw_scores(booster, matrix(frame))
    assert beside(bundle, matrix(frame), scores).differing == 0
    scores[7, :2] = scores[7, 1::-1]
    scores[9] = np.nan
    found = beside(bundle, matrix(frame), scores)
    assert (found.differing, found.wrong, found.example) == (2, 2, "r007")


def test_what_cannot_be_compared_is_told(own_trained: TrainedHome, bundle: Bundle) -> None:
    """A bundle that is gone, and vectors that are not its own: no error, and no finding."""
    vectors = vectors_of(bundle, 10)
    log(own_trained, np.full(10, 0.3), vectors, manifest="gone" * 16)
    log(own_trained, np.full(10, 0.3), vectors[:, :2].copy())
    found = judged(own_trained)
    assert sorted((each.manifest[:4], each.rows) for each in found.rescored) == sorted(
        [("gone", 0), (bundle.digest[:4], 0)]
    )
    assert all(each.not_compared for each in found.rescored) and len(found.not_compared) == 2
    assert differ(own_trained) == []


def test_only_what_the_model_said_is_scored_again(own_trained: TrainedHome, bundle: Bundle) -> None:
    """A fallback's score is another model's."""
    vectors = vectors_of(bundle, 40)
    sources = ["model"] * 30 + ["simple"] * 10
    log(own_trained, np.append(scores_of(bundle, vectors)[:30], np.full(10, 0.2)), vectors, source=sources)
    (told,) = judged(own_trained).rescored
    assert (told.answers, told.rows, told.differing) == (30, 30, 0)


def test_a_shadow_of_the_same_requests_is_scored_by_its_own_bundle(own_trained: TrainedHome, bundle: Bundle) -> None:
    """Ids are those of the champion's answers; what is told of each manifest is its own."""
    vectors = vectors_of(bundle, 10)
    log(own_trained, scores_of(bundle, vectors), vectors)
    log(own_trained, np.full(10, 0.3), vectors, manifest="gone" * 16, arm=["shadow"] * 10)
    told = {each.manifest: each for each in judged(own_trained).rescored}
    assert (told[bundle.digest].rows, told[bundle.digest].differing) == (10, 0)
    assert told["gone" * 16].not_compared and differ(own_trained) == []


def test_of_a_large_day_the_same_few_rows_are_drawn(own_trained: TrainedHome, bundle: Bundle) -> None:
    """By their ids: each time the same, whatever the day has beside them."""
    vectors = vectors_of(bundle, 900)
    log(own_trained, np.full(900, 0.3), vectors)
    day = logged(own_trained.platform, DOMAIN, DAY)
    assert day is not None
    first, again = (rescored_of_day(own_trained.platform, day) for _ in range(2))
    assert first == again and (first[0].rows, first[0].answers) == (rows_rescored, 900)
    (finding,) = (rescored_finding(DOMAIN, DAY, each) for each in first)
    assert finding is not None and f"{rows_rescored} of {rows_rescored}" in finding.summary
