"""Batches as rows of the table."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlplatform.monitoring.prediction_log import decode, encode, frame, schema
from mlplatform_tests.fakes.answered import NOON, answered


def test_batches_become_rows_of_the_table(tmp_path: Path) -> None:
    """Each answer one row with all that was told of it, whatever shapes the batches have."""
    batches = [
        answered(2, statuses={"synthetic/customers": ["present", "expired"]}),
        answered(
            1,
            first=2,
            model="wait",
            prediction=[3.5],
            probability=[None],
            confidence=[None],
            key=["k1"],
            scores=np.array([[3.5, np.nan]]).tobytes(),
            features=np.array([np.nan, 2], dtype=np.float32).tobytes(),
        ),
        answered(
            2,
            first=3,
            prediction=[None, "late"],
            source=["low_confidence", "rules"],
            degraded=[True, True],
            scores=b"",
            features=b"",
            views={},
            revisions={},
            statuses={},
            latency={"total": [9, 10]},
            reason=["worker lost", "worker lost"],
        ),
    ]
    rows = frame([decode(encode(batch)) for batch in batches])
    assert rows.schema == pl.Schema(schema)
    assert rows["request_id"].to_list() == ["r0", "r1", "r2", "r3", "r4"]
    assert rows["received"].dt.epoch("us").to_list() == [NOON // 1000] * 5
    assert rows["at"].dt.epoch("us").to_list() == [NOON // 1000] * 5
    assert rows["model"].to_list() == ["late", "late", "wait", "late", "late"]
    assert rows["prediction"].to_list() == ["1", "1", "3.5", None, "late"]
    assert rows["features"].to_list()[:2] == [[0, 1, 2], [3, 4, 5]]
    assert np.isnan(rows["features"].to_list()[2][0])
    assert rows["features"].to_list()[3:] == [None, None]
    assert rows["scores"].to_list()[:2] == [[0.75], [0.75]]
    assert rows["scores"].list.len().to_list() == [1, 1, 2, None, None]
    assert [[each["status"] for each in views] for views in rows["views"].to_list()] == [
        ["present"], ["expired"], ["present"], [], []
    ]  # fmt: skip
    assert rows["views"].to_list()[0][0]["revision"] == "customers-1.arrow"
    assert rows["total_us"].to_list() == [4, 4, 4, 9, 10]
    assert rows["queue_us"].to_list() == [0, 0, 0, None, None]
    assert rows["reason"].to_list() == [None, None, None, "worker lost", "worker lost"]
    assert frame([]).schema == pl.Schema(schema)
    with pytest.raises(pl.exceptions.PolarsError):
        frame([answered(3, arm=["champion"])])
