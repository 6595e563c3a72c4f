"""How a gateway worker follows the roster; what it answers is tried in `test_service` and `test_serving_faults`."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlplatform.registry.api_keys import ApiKeys
from mlplatform.registry.bundle import Bundle
from mlplatform.settings import Settings, settings
from mlplatform_tests.fakes.model_workers import ModelWorkerProcesses
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from serving.access import Access
from serving.arms import AGAIN_SECONDS
from serving.gateway import Gateway
from serving.metrics import Metrics
from serving.roster import Roster, Version, write_roster


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an empty home, with an online store."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path))
    publish(tmp_path)
    return settings()


@pytest.fixture
def bundle(told: Settings) -> Bundle:
    """A small bundle."""
    return bundle_of(told.home / "bundles", write_package(told.home))


@pytest.fixture
def sockets(bundle: Bundle, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Of a running model worker of it."""
    folder = tmp_path / "run"
    folder.mkdir()
    processes = ModelWorkerProcesses(bundle.folder, folder, 1)
    processes.start()
    yield tuple(str(path) for path in processes.sockets)
    processes.stop()


def serves(gateway: Gateway) -> Version | None:
    """The version that answers."""
    return gateway._arms.champion.version if gateway._arms.champion else None


def test_a_version_that_could_not_be_opened_is_tried_again(
    told: Settings, bundle: Bundle, sockets: tuple[str, ...], tmp_path: Path
) -> None:
    """A bundle whose files are still on their way is served once they are there, without a restart."""
    later = tmp_path / "later"
    version = Version(digest=bundle.digest, bundle=str(later), sockets=sockets, since="2026-01-01T00:00:00+00:00")
    write_roster(tmp_path, Roster(live=version))
    now = [0.0]

    async def what() -> None:
        gateway = Gateway(
            tmp_path,
            told,
            access=Access(ApiKeys(tmp_path / "keys"), required=False),
            metrics=Metrics(tmp_path / "metrics"),
            log=lambda live, batch: None,
            clock=lambda: now[0],
        )
        await gateway._arms.start()
        assert serves(gateway) is None
        assert str(later) in gateway._arms.fault
        shutil.copytree(bundle.folder, later)
        now[0] = AGAIN_SECONDS - 0.1
        await gateway._arms.start()
        assert serves(gateway) is None
        now[0] = AGAIN_SECONDS
        await gateway._arms.start()
        assert serves(gateway) == version
        await gateway.stop()

    asyncio.run(what())
