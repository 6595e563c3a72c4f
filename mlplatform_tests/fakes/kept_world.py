"""Tables, models, answers and the ledger of the synthetic domain under a policy, written in milliseconds.

The rows say nothing (each is null); how many there are tells one revision from another. What refers to what is real:
inputs of revisions, files of bundles, entries of the ledger, the log.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.reproducibility import Reproducibility, Retention
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.stage import Draft, Stage, Written
from mlplatform.features.tables import Tables
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Action, Alias, Ledger
from mlplatform.training.dataset import ROWS_FILE
from mlplatform_tests.fakes.logged_answers import log_answers
from mlplatform_tests.fakes.synthetic_home import Clock, platform_in

MODEL = "late_order"
START = datetime(2024, 3, 1, 12, tzinfo=UTC)


class KeptWorld:
    """The world at one instant; `days` moves it on."""

    def __init__(self, home: Path, **policy: timedelta | None) -> None:
        self.clock = Clock(START)
        self.platform: Platform = replace(platform_in(home), clock=self.clock)
        self.domain: Domain = replace(DOMAIN, reproducibility=Reproducibility(retention=Retention(**policy)))
        self._made = 0

    def days(self, number: float) -> None:
        """Time goes by."""
        self.clock.now += timedelta(days=number)

    def stage(self, table: str) -> Stage:
        """A table by `stage/table`."""
        stage, _, name = table.partition("/")
        return Tables(self.platform, self.domain).of(stage)[name]

    def land(self, day: str) -> None:
        """A day lands, or a correction of it: new revisions of raw, base, derived and a view, each from the former."""
        self._made += 1
        inputs: tuple[str, ...] = (f"landing/orders/{day}@{self._made}",)
        for table in ("raw/orders", "base/orders", "derived/deliveries", "feature_store/courier"):
            store = self.stage(table)
            rows = pl.DataFrame({name: [None] * self._made for name in store.schema}, schema=store.schema)
            written = Written(run_id="run", code_version="code", environment="lock", known_at=self.clock())
            made = store.append({day: Draft(rows=rows, inputs=inputs)}, written)[day]
            inputs = (f"{table}/{day}@{made.number}",)

    def train(self) -> str:
        """A model of everything that is current; gives its digest."""
        self._made += 1
        digest = sha256(str(self._made).encode()).hexdigest()
        recipe = f"{self.clock():%Y-%m-%d}-{digest[:8]}"
        folder = self.platform.training(self.domain.name, MODEL, recipe)
        pinned = {
            f"{self.domain.name}/derived/deliveries": self._current("derived/deliveries"),
            f"{self.domain.name}/courier": self._current("feature_store/courier"),
        }
        write_whole(folder / "recipe.json", "{}")
        write_whole(folder / "training_set.json", json.dumps({"rows": 1}))
        pl.DataFrame({"row": [1]}).write_parquet(folder / ROWS_FILE)
        write_whole(folder / "model.json", json.dumps({"manifest": digest}))
        for path in folder.iterdir():
            os.utime(path, (self.clock().timestamp(),) * 2)
        write_whole(self.platform.bundles / digest / "inputs.json", json.dumps(pinned))
        return digest

    def answer(self, manifest: str, rows: int = 2) -> None:
        """Answers of today's noon."""
        self._made += 1
        log_answers(self.platform, f"{self.clock():%Y-%m-%d}", rows, manifest=manifest, name=str(self._made))

    def move(self, action: Action, alias: Alias, manifest: str) -> None:
        """An event of the ledger."""
        Ledger(self.platform).append(
            f"{self.domain.name}/{MODEL}", action=action, alias=alias, to_manifest=manifest, actor="ada", reason="test",
            evidence={},
        )  # fmt: skip

    def hashes(self) -> dict[str, str]:
        """Every revision whose rows are there -> its content hash."""
        return {
            f"{table}/{each.partition}@{each.number}": each.content_hash
            for table in ("raw/orders", "base/orders", "derived/deliveries", "feature_store/courier")
            for each in self.stage(table).revisions()
            if not each.removed
        }

    def _current(self, table: str) -> Mapping[str, tuple[int, str]]:
        return {day: (each.number, each.content_hash) for day, each in self.stage(table).current().items()}
