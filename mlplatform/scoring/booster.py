"""The booster: from features to raw scores, on the device that was declared and on no other.

One place makes the matrix and asks XGBoost, for training, batch, replay and serving alike, so that the same row gives
the same bits everywhere. It refuses a device that is not there: XGBoost itself goes on without it, on the CPU, with a
warning.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

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
    filled = np.empty((features.height, features.width), dtype=np.float32)
    for position, column in enumerate(features.iter_columns()):
        filled[:, position] = column.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return filled


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
