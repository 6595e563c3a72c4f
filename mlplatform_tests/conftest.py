"""Fixtures for every test: an empty platform, a home in which a model was trained, a bucket on a real S3 endpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.s3_endpoint import Endpoint, Held, empty_bucket, s3_endpoint
from mlplatform_tests.fakes.synthetic_home import TrainedHome, platform_in, trained_home

# How long an example takes says what else the machine does, and nothing of the code.
settings.register_profile("mlplatform", deadline=None)
settings.load_profile("mlplatform")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--screenshots`: make the pictures of the docs anew."""
    parser.addoption("--screenshots", action="store_true", help="make the pictures in docs/images anew")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file in one process, for its module-level fixtures; a page of the docs takes minutes and needs none."""
    for item in items:
        alone = item.get_closest_marker("alone") is not None
        item.add_marker(pytest.mark.xdist_group(item.nodeid if alone else str(item.path)))


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


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An S3 endpoint."""
    with s3_endpoint(tmp_path_factory.mktemp("s3") / "buckets") as running:
        yield running


@pytest.fixture
def s3(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Held:
    """An empty bucket, and the environment in which it is found."""
    for name, value in endpoint.environment.items():
        monkeypatch.setenv(name, value)
    return empty_bucket()
