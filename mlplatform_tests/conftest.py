"""Fixtures for every test: an empty platform, and a home in which a model was trained."""

from pathlib import Path

import pytest

from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import TrainedHome, platform_in, trained_home


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A platform whose home is empty and whose clock stands still."""
    return platform_in(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedHome:
    """The synthetic domain with its binary model promoted. For reading only: who changes it takes `own_trained`."""
    return trained_home(tmp_path_factory.mktemp("trained") / "home")


@pytest.fixture
def own_trained(trained: TrainedHome, tmp_path: Path) -> TrainedHome:
    """A copy of `trained` that a test may change."""
    return trained.copied_to(tmp_path / "home")
