"""A model that reads no view goes the whole way: from landed days to a promoted bundle."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform.features.chain import run_chain
from mlplatform.features.landing.landing import land_sample
from mlplatform.features.materialization import raise_failures
from mlplatform.features.tables import day_range
from mlplatform.registry.candidate import bundle_of, make_candidate
from mlplatform.rollout.judge import judge_candidate
from mlplatform.training.dataset import build_training_set, save_training_set
from mlplatform.training.recipe import recipe, save_recipe
from mlplatform_tests.fakes import odd_domains
from mlplatform_tests.fakes.synthetic_home import platform_in


def test_a_model_of_the_request_alone_is_trained_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No view, no snapshot, no feature table: the training set is the requests, and the bundle scores them."""
    package = tmp_path / "kiosk"
    package.mkdir()
    shutil.copy(odd_domains.__file__, package / "kiosk.py")
    (package / "__init__.py").write_text("from .kiosk import kiosk\n\nDOMAIN = kiosk()\n")
    monkeypatch.setattr("mlplatform.registry.candidate.domain_package", lambda _name: package)
    domain = odd_domains.kiosk()
    assert domain.sample is not None
    platform = platform_in(tmp_path, datetime(2025, 1, 1, tzinfo=UTC))
    land_sample(platform, domain, domain.sample.start, domain.sample.end)
    days = day_range(domain.sample.start.isoformat(), domain.sample.end.isoformat())
    for _, outcome in run_chain(platform, domain, days, run_id="test"):
        raise_failures(outcome)
    model = domain.models[0]
    made = recipe(platform, domain, model)
    folder = platform.training(domain.name, model.name, made.key)
    save_recipe(folder, made)
    saved = save_training_set(folder, build_training_set(platform, domain, model, made), made)
    candidate = make_candidate(platform, domain, model, made)
    evaluation, decision = judge_candidate(platform, domain, model, made)
    assert saved["rows"]
    assert decision.candidate == candidate.manifest
    assert evaluation.metrics["candidate"]
    bundle_of(platform, candidate.manifest).check_golden()
