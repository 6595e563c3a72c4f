"""Fitting: the same bytes for any number of threads, refusals, and the simple model against the truth."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from scipy.optimize import minimize  # type: ignore[import-untyped, unused-ignore]

from mlplatform.domain.model import Task, XGBoostSettings
from mlplatform.errors import DataError, DeclarationError, DeviceUnavailable
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.scoring.simple_model import logistic
from mlplatform.training.fit import fit, fit_simple, importance
from mlplatform_tests.fakes.declared_models import model_of

generator = np.random.default_rng(11)
ROWS = 1500
features = pl.DataFrame(
    {
        "a": generator.normal(size=ROWS),
        "b": generator.normal(10, 5, size=ROWS),
        "c": np.zeros(ROWS),
    }
).with_columns(pl.when(pl.col("b") > 15).then(None).otherwise(pl.col("b")).alias("b"))
log_odds = 1.5 * features["a"].to_numpy() - 0.5
binary_labels = (generator.random(ROWS) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
class_labels = np.digitize(features["a"].to_numpy() + generator.normal(0, 0.5, ROWS), [-0.5, 0.5]).astype(np.float64)
values = 3.0 * features["a"].to_numpy() + 7.0
labels_of: dict[Task, np.ndarray] = {"binary": binary_labels, "multiclass": class_labels, "regression": values}
tasks = pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])


@tasks
def test_threads_do_not_change_a_byte(task: Task) -> None:
    """One thread or two, with rows and columns drawn at random: the same model file."""
    settings = XGBoostSettings(rounds=10, subsample=0.7, colsample_bytree=0.6)
    written = [
        bytes(fit(features, labels_of[task], model_of(task), replace(settings, threads=threads)).save_raw("ubj"))
        for threads in (1, 2)
    ]
    assert written[0] == written[1]


@tasks
def test_scores_have_the_shape_of_the_task(task: Task) -> None:
    """One probability, one per class, or one value; and the booster knows its feature names."""
    spec = model_of(task)
    booster = fit(features, labels_of[task], spec, spec.settings)
    scores = raw_scores(booster, matrix(features))
    assert scores.shape == ((ROWS, 3) if task == "multiclass" else (ROWS,))
    assert booster.feature_names == ["a", "b", "c"]
    assert raw_scores(booster, matrix(features[:0])).shape == scores[:0].shape


def test_another_seed_is_another_model() -> None:
    """The seed is really used."""
    spec = model_of("binary")
    one, other = (
        bytes(fit(features, binary_labels, spec, XGBoostSettings(rounds=3, subsample=0.5, seed=seed)).save_raw("ubj"))
        for seed in (1, 2)
    )
    assert one != other


def test_importance_is_a_share_and_names_unused_features() -> None:
    """Shares sum to 1 in feature order; a constant column has none."""
    spec = model_of("binary")
    shares = importance(fit(features, binary_labels, spec, spec.settings))
    assert list(shares) == ["a", "b", "c"]
    assert shares["c"] == 0
    assert shares["a"] > shares["b"]
    assert sum(shares.values()) == pytest.approx(1)


def test_cuda_is_not_fitted_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No card: nothing is fitted."""
    monkeypatch.setattr(xgb, "build_info", lambda: {"USE_CUDA": False})
    with pytest.raises(DeviceUnavailable):
        fit(features, binary_labels, model_of("binary"), XGBoostSettings(device="cuda"))


@pytest.mark.parametrize(("task", "wrong"), [("binary", 2.0), ("multiclass", 3.0), ("regression", np.nan)])
def test_a_wrong_label_is_refused(task: Task, wrong: float) -> None:
    """A label of no class, or none at all, is named by its row; both models refuse it."""
    labels = labels_of[task].copy()
    labels[17] = wrong
    spec = model_of(task)
    with pytest.raises(DataError, match="row 17"):
        fit(features, labels, spec, spec.settings)
    with pytest.raises(DataError, match="row 17"):
        fit_simple(features, labels, spec)


def test_no_rows_are_refused() -> None:
    """Nothing is learned from nothing."""
    spec = model_of("binary")
    with pytest.raises(DataError):
        fit(features[:0], binary_labels[:0], spec, spec.settings)


def test_an_objective_without_probabilities_is_refused() -> None:
    """What comes after the booster reads probabilities."""
    spec = model_of("binary")
    with pytest.raises(DeclarationError):
        fit(features, binary_labels, spec, XGBoostSettings(objective="binary:logitraw"))


def test_simple_model_finds_the_optimum() -> None:
    """Newton's answer is the minimum that a general optimiser finds for the same penalised loss."""
    spec = model_of("binary")
    model = fit_simple(features, binary_labels, spec)
    filled = features["b"].fill_null(features["b"].mean())
    columns = [features["a"].to_numpy(), filled.to_numpy()]
    design = np.stack(
        [
            np.ones(ROWS),
            *((column - mean) / scale for column, mean, scale in zip(columns, model.means, model.scales, strict=True)),
        ],
        axis=1,
    )

    def loss(coefficients: np.ndarray) -> float:
        signed = np.where(binary_labels == 1, 1, -1) * (design @ coefficients)
        return float(np.logaddexp(0, -signed).sum() + 0.5 * (coefficients[1:] ** 2).sum())

    best = minimize(loss, np.zeros(3), method="BFGS").x
    np.testing.assert_allclose([model.intercepts[0], *model.weights[0]], best, atol=1e-4)
    np.testing.assert_allclose(model.predict(features), logistic(design @ best), atol=1e-4)


def test_simple_regression_recovers_a_line() -> None:
    """A label that is a line in one feature is foretold, up to the penalty."""
    predicted = fit_simple(features, values, model_of("regression")).predict(features)
    assert np.abs(predicted - values).max() < 0.05


def test_simple_multiclass_tells_classes_apart() -> None:
    """Its most probable class is right more often than the commonest one."""
    predicted = fit_simple(features, class_labels, model_of("multiclass")).predict(features)
    commonest = np.bincount(class_labels.astype(int)).max() / ROWS
    assert (predicted.argmax(axis=1) == class_labels).mean() > commonest + 0.1


def test_simple_model_survives_separable_and_constant_labels() -> None:
    """Perfectly separable labels, one class only, and a constant feature all give finite coefficients."""
    spec = model_of("binary", simple_features=("a", "c"))
    separable = (features["a"].to_numpy() > 0).astype(np.float64)
    predicted = fit_simple(features, separable, spec).predict(features)
    assert ((predicted > 0.5) == (separable == 1)).mean() > 0.98
    only = fit_simple(features, np.zeros(ROWS), spec).predict(features)
    assert 0 < only[0] < 0.01
