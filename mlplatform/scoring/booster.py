"""The booster: from features to raw scores, on the device that was declared and on no other.

One place makes the matrix and asks XGBoost, for training, batch, replay and serving alike, so that the same row gives
the same bits everywhere. It refuses a device that is not there: XGBoost itself goes on without it, on the CPU, with a
warning.
"""

from __future__ import annotations

import ctypes
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import Device
from mlplatform.errors import BundleCorrupt, DeviceUnavailable

if TYPE_CHECKING:
    import xgboost as xgb

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]


def matrix(features: pl.DataFrame) -> Matrix:
    """Features as XGBoost reads them.

    Parameters
    ----------
    features : (n, k) frame
        Numbers and Booleans; a null is a missing value.

    Returns
    -------
    (n, k) float32, C-contiguous, in the column order of the frame; null is NaN.

    Examples
    --------
    >>> matrix(pl.DataFrame({"a": [1, None], "b": [True, False]})).tolist()
    [[1.0, 1.0], [nan, 0.0]]
    """
    dtypes = set(features.dtypes)
    if dtypes <= _TOGETHER and not dtypes.isdisjoint(_FLOATS):
        # Polars finds one dtype that holds them all, and makes NaN of nulls: a third of the time of column by column.
        return np.ascontiguousarray(features.to_numpy(), dtype=np.float32)
    filled = np.empty((features.height, features.width), dtype=np.float32)
    for position, column in enumerate(features.iter_columns()):
        filled[:, position] = _numbers(column)
    return filled


def _numbers(column: pl.Series) -> npt.NDArray[Any]:
    """The values, a null as NaN, in a dtype that numpy rounds to float32 as Polars does: once, to the nearest."""
    # Polars' own cast and fill take 45 µs a column, whatever its length; this takes 1 to 3.
    if column.null_count() and column.dtype not in _EXACT_AS_FLOAT64:
        return column.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return column.to_numpy()


_EXACT_AS_FLOAT64 = (
    pl.Float32(),
    pl.Float64(),
    pl.Int8(),
    pl.Int16(),
    pl.Int32(),
    pl.UInt8(),
    pl.UInt16(),
    pl.UInt32(),
)
"""Numbers that float64 holds, which is what Polars gives numpy where there are nulls."""

_FLOATS = frozenset({pl.Float32(), pl.Float64()})
_TOGETHER = frozenset({*_EXACT_AS_FLOAT64, pl.Boolean()})


def check_device(device: Device) -> None:
    """Make sure that the declared device is really there.

    Raises
    ------
    DeviceUnavailable
        `cuda` is declared, and XGBoost is built without it, or no driver or no card answers.
    """
    if device == "cpu":
        return
    import xgboost as xgb

    if not xgb.build_info()["USE_CUDA"]:
        raise DeviceUnavailable(device, "this XGBoost is built without CUDA; install the extra `gpu` instead of `cpu`")
    cards, reason = _cards()
    if cards == 0:
        raise DeviceUnavailable(device, reason)


def load_booster(path: Path, *, device: Device, threads: int) -> xgb.Booster:
    """A booster from its own file format, bound to its device.

    Parameters
    ----------
    path : file written by `Booster.save_model`
    device : where it scores; checked before anything is read
    threads : of one call. One for anything that answers requests: a team of two costs 16 ms per call on busy cores, a
        row alone takes 0.2 ms. Fixed at load, because changing it makes the next call configure anew (0.1 ms).

    Raises
    ------
    DeviceUnavailable
        The device is not on this machine.
    BundleCorrupt
        XGBoost cannot read the file.
    """
    check_device(device)
    import xgboost as xgb

    try:
        booster = xgb.Booster(model_file=path)
    except (xgb.core.XGBoostError, ValueError) as error:
        raise BundleCorrupt(str(path), f"XGBoost cannot read it ({str(error).splitlines()[0]})") from error
    booster.set_param({"device": device, "nthread": threads})
    return booster


def raw_scores(booster: xgb.Booster, features_matrix: Matrix) -> Scores:
    """What the booster itself says, before calibration.

    Parameters
    ----------
    booster : as `load_booster` or `fit` gives it
    features_matrix : (n, k) float32
        In the order of the model's feature names; NaN is missing.

    Returns
    -------
    (n,) float64 probabilities or values, or (n, classes) for a multiclass model. A row's score does not depend on the
    rows beside it. XGBoost computes in float32; float64 holds each of its values exactly.
    """
    if not len(features_matrix):
        width = booster.num_features()
        one = np.asarray(booster.inplace_predict(np.zeros((1, width), dtype=np.float32)))
        return np.empty((0, *one.shape[1:]), dtype=np.float64)
    return np.asarray(booster.inplace_predict(features_matrix), dtype=np.float64)


class PreparedBooster:
    """A booster on the CPU that scores small batches at the least cost, to the same bits as `raw_scores`.

    `inplace_predict` spends more on its arguments than on the trees: 160 µs for one row of 30 features and 300 trees,
    against 33 µs here, where the configuration and the matrix that XGBoost reads through are made once. It goes
    through XGBoost's C function by way of the package's private handle, for which its version is pinned. For one
    thread at a time.

    Parameters
    ----------
    booster : as `load_booster` gives it, for the device `cpu`; never changed again
    """

    def __init__(self, booster: xgb.Booster) -> None:
        from xgboost.core import _LIB, _check_call, _ProxyDMatrix

        self.columns = booster.num_features()
        self._booster = booster
        self._check = _check_call
        self._call = _LIB.XGBoosterPredictFromDense
        # A proxy handed in again and again saves the making of one for each call, which is half of it.
        self._proxy = _ProxyDMatrix()
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._dimensions = ctypes.c_uint64()
        self._scores = ctypes.POINTER(ctypes.c_float)()
        self._out = tuple(ctypes.byref(each) for each in (self._shape, self._dimensions, self._scores))
        self._configuration = json.dumps(
            {
                "type": 0,
                "training": False,
                "iteration_begin": 0,
                "iteration_end": 0,
                "missing": float("nan"),
                "strict_shape": False,
                "cache_id": 0,
            }
        ).encode()
        one = self._predict(np.zeros((1, self.columns), dtype=np.float32))
        self.outputs = one.shape[1] if one.ndim == 2 else 1

    def raw_scores(self, features_matrix: Matrix) -> Scores:
        """What the booster itself says, before calibration.

        Parameters
        ----------
        features_matrix : (n, k) float32
            In the order of the model's feature names; NaN is missing.

        Returns
        -------
        (n,) float64, or (n, classes), as the function `raw_scores`

        Raises
        ------
        ValueError
            The matrix has another number of columns than the model.
        xgboost.core.XGBoostError
            XGBoost itself gives up.
        """
        given = np.ascontiguousarray(features_matrix, dtype=np.float32)
        if given.ndim != 2 or given.shape[1] != self.columns:
            raise ValueError(f"a matrix of shape {given.shape} was given to a model of {self.columns} features")
        if not len(given):
            return np.empty((0,) if self.outputs == 1 else (0, self.outputs), dtype=np.float64)
        return self._predict(given)

    def _predict(self, given: Matrix) -> Scores:
        where = b'{"data":[%d,true],"shape":[%d,%d],"strides":null,"typestr":"<f4","version":3}' % (
            given.__array_interface__["data"][0],
            *given.shape,
        )
        self._check(self._call(self._booster.handle, where, self._configuration, self._proxy.handle, *self._out))
        shape = [self._shape[axis] for axis in range(self._dimensions.value)]
        # XGBoost keeps the scores in memory of its own until the next call.
        scores = np.frombuffer(ctypes.string_at(self._scores, 4 * math.prod(shape)), dtype=np.float32)
        return scores.reshape(shape).astype(np.float64)


def card_name() -> str | None:
    """Name of the first card that the driver offers; None: there is none."""
    if _cards()[0] == 0:
        return None
    name = ctypes.create_string_buffer(256)
    device = ctypes.c_int(0)
    driver = ctypes.CDLL("libcuda.so.1")
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, len(name), device):
        return None
    return name.value.decode(errors="replace")


def _cards() -> tuple[int, str]:
    """Number of cards that the driver really offers, and why it is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, "the NVIDIA driver (libcuda.so.1) is not installed here"
    started = driver.cuInit(0)
    if started != 0:
        return 0, f"the NVIDIA driver does not start (cuInit says {started})"
    count = ctypes.c_int(0)
    asked = driver.cuDeviceGetCount(ctypes.byref(count))
    if asked != 0 or count.value == 0:
        return 0, "the NVIDIA driver offers no card to this process (look at CUDA_VISIBLE_DEVICES)"
    return count.value, ""
