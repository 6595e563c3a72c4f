"""The search: trial 0 is the declaration, seeds repeat, and the hold-out comes after a gap."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mlplatform.domain.model import Between, SearchSpace
from mlplatform.errors import DataError, DeclarationError
from mlplatform.training import search as search_module
from mlplatform.training.fit import fit
from mlplatform.training.search import search
from mlplatform_tests.fakes.declared_models import model_of

generator = np.random.default_rng(5)
ROWS = 600
START = datetime(2013, 1, 1, tzinfo=UTC)
features = pl.DataFrame({name: generator.normal(size=ROWS) for name in "abc"})
labels = (features["a"].to_numpy() + generator.normal(size=ROWS) > 0) * 1.0
at = pl.Series(
    [START + timedelta(hours=int(each)) for each in generator.permutation(ROWS)], dtype=pl.Datetime("us", "UTC")
)
space = {"max_depth": Between(low=1, high=5, whole=True), "learning_rate": Between(low=0.02, high=0.5, log=True)}


def test_without_trials_the_declared_settings_stand() -> None:
    """A search is off unless declared."""
    spec = model_of("binary")
    found = search(features, labels, at, spec)
    assert found.settings == spec.settings
    assert found.trials == ()


def test_trial_0_is_declared_and_the_best_is_never_below_it() -> None:
    """The declared settings are tried first, and the result is the lowest of all."""
    spec = model_of("binary", search=SearchSpace(trials=4, parameters=space))
    found = search(features, labels, at, spec)
    assert [each["number"] for each in found.trials] == [0, 1, 2, 3]
    assert found.trials[0]["params"] == {"max_depth": 3, "learning_rate": 0.1}
    best = min(found.trials, key=lambda each: each["value"])
    assert found.settings.max_depth == best["params"]["max_depth"]
    assert isinstance(found.settings.max_depth, int)
    assert found.settings.learning_rate == best["params"]["learning_rate"]


def test_the_same_seed_makes_the_same_trials() -> None:
    """The search can be repeated to the bit."""
    spec = model_of("binary", search=SearchSpace(trials=3, parameters=space))
    assert search(features, labels, at, spec) == search(features, labels, at, spec)


def test_a_declaration_outside_the_space_is_still_trial_0() -> None:
    """The sampler may not learn from it, but it is tried."""
    narrow = {"max_depth": Between(low=4, high=5, whole=True)}
    found = search(features, labels, at, model_of("binary", search=SearchSpace(trials=2, parameters=narrow)))
    assert found.trials[0]["params"] == {"max_depth": 3}
    assert found.trials[1]["params"]["max_depth"] in (4, 5)


def test_trials_are_judged_after_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial is fitted on a row whose label was not known when the hold-out began, nor on one outside the sample."""
    seen: list[pl.DataFrame] = []

    def recorded(frame: pl.DataFrame, *arguments: object) -> object:
        seen.append(frame)
        return fit(frame, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(search_module, "fit", recorded)
    rows = features.with_columns(at=at.dt.epoch("s"))
    spec = model_of("binary", search=SearchSpace(trials=1, parameters=space, sample_rows=300))
    search(rows, labels, at, spec)
    hours = (seen[0]["at"] - int(START.timestamp())) // 3600
    assert sorted(hours.to_list()) == list(range(300, 540 - 24))


def test_a_regression_is_judged_by_the_metric_of_its_gate() -> None:
    """Mean absolute error for a gate on it."""
    spec = model_of("regression", search=SearchSpace(trials=2, parameters=space))
    found = search(features, features["a"].to_numpy() * 2, at, spec)
    assert found.metric == "mae"
    assert found.trials[0]["value"] < 1


def test_a_parameter_that_is_no_setting_is_refused() -> None:
    """The message lists what there is."""
    spec = model_of("binary", search=SearchSpace(trials=1, parameters={"depth": Between(low=1, high=2)}))
    with pytest.raises(DeclarationError, match="max_depth"):
        search(features, labels, at, spec)


def test_rows_of_one_day_cannot_be_searched_on() -> None:
    """Within one label delay there is nothing to fit a trial on."""
    spec = model_of("binary", search=SearchSpace(trials=1, parameters=space, sample_rows=20))
    with pytest.raises(DataError, match="sample_rows"):
        search(features, labels, at, spec)
