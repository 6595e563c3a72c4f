"""The booster: the matrix, the device, and scores that do not depend on the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import BundleCorrupt, DeviceUnavailable
from mlplatform.scoring.booster import PreparedBooster, check_device, load_booster, matrix, raw_scores

generator = np.random.default_rng(7)
x = generator.normal(size=(600, 6)).astype(np.float32)
x[generator.random(x.shape) < 0.1] = np.nan
y = (np.nan_to_num(x[:, 0]) + generator.normal(size=600) > 0).astype(np.float64)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted booster in its own format."""
    told = {"objective": "binary:logistic", "nthread": 1, "max_depth": 4}
    booster = xgb.train(told, xgb.QuantileDMatrix(x, y, nthread=1), 30)
    written = tmp_path_factory.mktemp("booster") / "booster.ubj"
    booster.save_model(written)
    return written


def test_matrix_is_float32_with_nan_for_null() -> None:
    """Nulls become NaN, Booleans 0 and 1, and the rows lie one after the other in memory."""
    made = matrix(pl.DataFrame({"a": [1, None], "b": [True, False], "c": [0.1, None]}))
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made, np.array([[1, 1, 0.1], [np.nan, 0, np.nan]], dtype=np.float32))


def test_matrix_of_no_rows_keeps_its_width() -> None:
    """An empty frame is an empty matrix, not an error."""
    assert matrix(pl.DataFrame({"a": [], "b": []}, schema={"a": pl.Int8, "b": pl.Float64})).shape == (0, 2)


@settings(max_examples=60)
@given(start=st.integers(0, 500), rows=st.integers(1, 99))
def test_a_row_scores_the_same_in_any_batch(path: Path, start: int, rows: int) -> None:
    """A batch of any size gives the very bits that the whole gives."""
    booster = load_booster(path, device="cpu", threads=1)
    whole = raw_scores(booster, x)
    np.testing.assert_array_equal(raw_scores(booster, x[start : start + rows].copy()), whole[start : start + rows])


def test_no_rows_give_no_scores(path: Path) -> None:
    """An empty batch has an empty answer."""
    scores = raw_scores(load_booster(path, device="cpu", threads=1), np.empty((0, 6), dtype=np.float32))
    assert scores.shape == (0,)


def test_scores_are_float64(path: Path) -> None:
    """Whatever comes after the booster computes in double precision."""
    assert raw_scores(load_booster(path, device="cpu", threads=1), x[:1]).dtype == np.float64


def test_cuda_is_refused_without_cuda(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model declared for the card is not scored on the CPU in silence: the message says what to install."""
    monkeypatch.setattr(xgb, "build_info", lambda: {"USE_CUDA": False})
    with pytest.raises(DeviceUnavailable, match="built without CUDA"):
        load_booster(path, device="cuda", threads=1)


def test_cuda_is_refused_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """XGBoost built with CUDA is not enough: the driver is asked for a card."""

    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(xgb, "build_info", lambda: {"USE_CUDA": True})
    monkeypatch.setattr("ctypes.CDLL", no_driver)
    with pytest.raises(DeviceUnavailable, match="driver"):
        check_device("cuda")


@pytest.mark.parametrize(("started", "cards", "told"), [(100, 1, "cuInit says 100"), (0, 0, "offers no card")])
def test_cuda_is_refused_when_the_driver_has_none(
    monkeypatch: pytest.MonkeyPatch, started: int, cards: int, told: str
) -> None:
    """A driver that does not start, or lists no card, is as good as none."""
    monkeypatch.setattr(xgb, "build_info", lambda: {"USE_CUDA": True})
    monkeypatch.setattr("ctypes.CDLL", lambda name: FakeDriver(started, cards))
    with pytest.raises(DeviceUnavailable, match=told):
        check_device("cuda")


def test_cuda_is_accepted_with_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that the driver lists is enough; the very same without one is refused."""
    monkeypatch.setattr(xgb, "build_info", lambda: {"USE_CUDA": True})
    monkeypatch.setattr("ctypes.CDLL", lambda name: FakeDriver(0, 1))
    check_device("cuda")
    monkeypatch.setattr("ctypes.CDLL", lambda name: FakeDriver(0, 0))
    with pytest.raises(DeviceUnavailable, match="no card"):
        check_device("cuda")


def test_a_torn_file_is_no_booster(tmp_path: Path) -> None:
    """A file XGBoost cannot read is reported as a corrupt bundle."""
    torn = tmp_path / "booster.ubj"
    torn.write_bytes(b"{not a booster")
    with pytest.raises(BundleCorrupt):
        load_booster(torn, device="cpu", threads=1)


class FakeDriver:
    """The two calls of the CUDA driver that are used."""

    def __init__(self, started: int, cards: int) -> None:
        self.started, self.cards = started, cards

    def cuInit(self, flags: int) -> int:
        return self.started

    def cuDeviceGetCount(self, count: object) -> int:
        count._obj.value = self.cards  # type: ignore[attr-defined]
        return 0


@pytest.mark.parametrize(
    "told",
    [
        {"objective": "binary:logistic"},
        {"objective": "multi:softprob", "num_class": 3},
        {"objective": "reg:squarederror"},
    ],
    ids=lambda told: str(told["objective"]),
)
def test_prepared_scores_are_the_same_bits(told: dict[str, Any], tmp_path: Path) -> None:
    """The quick way through XGBoost's C function says what its own Python says, for batches of every size in turn."""
    labels = np.arange(600) % 3 if "num_class" in told else y
    xgb.train({**told, "nthread": 1}, xgb.QuantileDMatrix(x, labels, nthread=1), 20).save_model(tmp_path / "m.ubj")
    booster = load_booster(tmp_path / "m.ubj", device="cpu", threads=1)
    prepared = PreparedBooster(booster)
    assert (prepared.columns, prepared.outputs) == (6, 3 if "num_class" in told else 1)
    sizes = [*range(1, 301), 1, 300, 2]
    kept = [(size, prepared.raw_scores(x[size : 2 * size].copy())) for size in sizes]
    for size, scores in kept:
        expected = raw_scores(booster, x[size : 2 * size].copy())
        assert scores.dtype == np.float64
        np.testing.assert_array_equal(scores.view(np.uint64), expected.view(np.uint64), strict=True)


def test_prepared_takes_any_layout_and_refuses_another_width(path: Path) -> None:
    """Rows that do not lie together are put together; a wrong width would read memory that is not the matrix's."""
    booster = load_booster(path, device="cpu", threads=1)
    prepared = PreparedBooster(booster)
    np.testing.assert_array_equal(prepared.raw_scores(x[::7]), raw_scores(booster, x[::7].copy()))
    assert prepared.raw_scores(x[:0]).shape == (0,)
    for wrong in (x[:3, :5].copy(), x[0]):
        with pytest.raises(ValueError, match="6 features"):
            prepared.raw_scores(wrong)
