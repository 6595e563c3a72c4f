"""The Evidently report: it opens without a network, odd columns are left out, and its failure is one of ours."""

import re
from pathlib import Path

import numpy as np
import pytest

from mlplatform.errors import ReportFailed
from mlplatform.monitoring import report
from mlplatform.monitoring.report import features_shown, write_report
from mlplatform.scoring.booster import Matrix


def rows(seed: int, columns: int = 6) -> Matrix:
    """Some rows: the last columns are constant, empty, and partly infinite."""
    made = np.random.default_rng(seed).normal(size=(200, columns)).astype(np.float32)
    made[:, -3], made[:, -2] = 3, np.nan
    made[:50, -1] = np.inf
    return made


NAMES = ["distance", "minutes", "hour", "constant", "empty", "boundless"]


def test_it_shows_every_feature_that_has_values_and_loads_nothing(tmp_path: Path) -> None:
    """In one file; what it links to are addresses inside scripts, never a script, style or picture to load."""
    path = tmp_path / "reports" / "day.html"
    write_report(path, rows(1), rows(2), NAMES, "synthetic/late_order on a day")
    html = path.read_text()
    assert all(f"{name}" in html for name in NAMES if name != "empty") and '"empty"' not in html
    assert "Not drawn, for want of any value on the day or in training: empty." in html
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//", html)
    assert 1e6 < len(html) < 9e6


def test_what_evidently_raises_is_told(tmp_path: Path) -> None:
    """Nothing is left to show, which it does not bear; no half a file is left."""
    path = tmp_path / "day.html"
    with pytest.raises(ReportFailed, match="no report of the day: Evidently raised"):
        write_report(path, rows(1)[:, 4:5], rows(2)[:, 4:5], ["empty"], "the day")
    assert not path.exists()


def test_features_beyond_the_first_ones_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its time."""
    assert features_shown >= 10
    monkeypatch.setattr(report, "features_shown", 2)
    path = tmp_path / "day.html"
    write_report(path, rows(1), rows(2), NAMES, "the day")
    html = path.read_text()
    assert "minutes" in html and "boundless" not in html
