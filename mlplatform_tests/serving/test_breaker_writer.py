"""What a gateway says of its breakers: each transition a line in a file, and a full disk nobody's concern."""

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mlplatform.features.online.store import open_online_store
from mlplatform.monitoring.breaker_log import BreakerTransition, breaker_folder, files, read
from mlplatform.registry.bundle import Bundle
from mlplatform.settings import settings
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from serving import live_model
from serving.batch import Ask
from serving.breaker_writer import BreakerWriter
from serving.gateway import wall_clock
from serving.live_model import open_model
from serving.metrics import Metrics
from serving.roster import Version

REQUEST = b'{"berth": "north", "length": 250.0, "flag": "NO"}'


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small bundle, with an online store beside it."""
    publish(tmp_path)
    return bundle_of(tmp_path / "bundles", write_package(tmp_path))


def written(home: Path) -> list[BreakerTransition]:
    """All that lies there."""
    lines = [line for path in files(breaker_folder(home, "harbour")) for line in read(path)]
    return [line.transition for line in lines if line.transition is not None]


def without_workers(bundle: Bundle, home: Path, monkeypatch: pytest.MonkeyPatch, asks: int) -> list[str]:
    """Ask a model that has no worker so many times; the sources of the answers."""
    monkeypatch.setattr(live_model, "CONNECT_SECONDS", 0.0)
    monkeypatch.setenv("MLPLATFORM_HOME", str(home))
    version = Version(bundle.digest, str(bundle.folder), (str(home / "nobody"),), "2024-05-01T12:00:00Z")
    writer = BreakerWriter(home)

    async def ask() -> list[str]:
        live = await open_model(
            version,
            open_online_store(str(home / "online")),
            settings(),
            metrics=Metrics(home / "metrics"),
            log=lambda live, batch: None,
            changed=writer,
            now=wall_clock,
        )
        sources = []
        for row in range(asks):
            values, at = live.predictor.understand(REQUEST)
            now = time.monotonic()
            answer: Any = json.loads(await live.answer(Ask(values, at, REQUEST, str(row), "", b"", now, now + 2)))
            sources.append(answer["source"])
        await live.close()
        return sources

    sources = asyncio.run(ask())
    writer.close()
    return sources


def test_a_breaker_that_opens_is_written_down(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whom, of what, why and when, on the wall's clock; the callers have their answers all the same."""
    before = time.time_ns()
    asks = bundle.model.serving.breaker.minimum_calls
    sources = without_workers(bundle, tmp_path, monkeypatch, asks)
    assert set(sources) == {"simple_model"} and len(sources) == asks
    (told,) = written(tmp_path)
    assert (told.model, told.breaker, told.before, told.after) == ("harbour/waits", "harbour/waits", "closed", "open")
    assert (told.manifest, told.model_version) == (bundle.digest, bundle.manifest.model_version)
    assert told.gateway.endswith(f"-{os.getpid()}")
    assert told.reason.startswith("failure rate 1.00")
    assert before <= told.at <= time.time_ns()


def test_a_disk_that_takes_nothing_costs_records_and_no_answers(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted where an operator looks."""
    (tmp_path / "breaker").write_text("a file where the folder should be")
    asks = bundle.model.serving.breaker.minimum_calls
    with caplog.at_level(logging.WARNING, logger="serving.breaker_writer"):
        assert set(without_workers(bundle, tmp_path, monkeypatch, asks)) == {"simple_model"}
    told = [each.getMessage() for each in caplog.records if each.name == "serving.breaker_writer"]
    assert len(told) == 1 and "1 so far. Look at the disk" in told[0]
