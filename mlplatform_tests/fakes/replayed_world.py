"""A shop whose answers are replayed: the synthetic domain, trained, served by the gateway in process, and logged."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows as orders_of
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import stages
from mlplatform.monitoring.pickup import logged
from mlplatform.registry.bundle import Bundle, write_bundle
from mlplatform.registry.bundled_code import domain_folder
from mlplatform.registry.candidate import bundle_of
from mlplatform.reproducibility.replay.replay import replay
from mlplatform.reproducibility.replay.verdict import Replayed, Verdict
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome, land_orders, run_stage

DAY, BEFORE, TWO_BEFORE = "2024-01-20", "2024-01-19", "2024-01-18"


def moment(hour: int, minute: int = 0, day: str = DAY) -> datetime:
    """An instant of a day, UTC."""
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(hours=hour, minutes=minute)


class World:
    """A trained home on the night of the day that is answered."""

    def __init__(self, home: TrainedHome, folder: Path) -> None:
        self.platform, self.folder = home.platform, folder
        self.bundle = bundle_of(home.platform, home.entry.to_manifest)
        self.at(0, 10)

    def at(self, hour: int, minute: int = 0, day: str = DAY) -> None:
        """It is so late on the day."""
        clock = self.platform.clock
        assert isinstance(clock, Clock)
        clock.now = moment(hour, minute, day)

    def publish(self, as_of: str = BEFORE) -> None:
        """Bring the online store up to a day."""
        publish_values(self.platform, DOMAIN, as_of=as_of)

    def serve(self, *, hours: range = range(12, 14), gateway: Gateway | None = None, **more: Any) -> None:
        """Answer the requests of some hours of the day."""
        gateway = gateway or Gateway(self.platform, self.bundle)
        gateway.serve(asked_on(self.platform, DAY, hours=hours), self.folder, **more)

    def correct(self, day: str, *, seed: int = 9, domain: Domain = DOMAIN) -> None:
        """Other orders land for a day, and are computed."""
        land_orders(self.platform, [day], {day: orders_of(date.fromisoformat(day), rows_per_day=200, seed=seed)})
        for stage in stages:
            run_stage(self.platform, stage, [day], domain)

    def bundle_of(self, digest: str) -> Bundle:
        """A version."""
        return bundle_of(self.platform, digest)

    def variant(self, *edits: tuple[str, str, str], **changed: Any) -> Bundle:
        """The same model with other code: in a file of its package, one text in the place of another."""
        package = self.folder / f"variant-{len(list(self.folder.glob('variant-*')))}" / "synthetic"
        package.mkdir(parents=True)
        for path in sorted(domain_folder("synthetic").glob("*.py")):
            source = path.read_text()
            for name, before, after in edits:
                if name == path.name:
                    assert before in source
                    source = source.replace(before, after)
            (package / path.name).write_text(source)
        first = self.bundle
        scores = pl.read_ipc(first.folder / "golden_scores.arrow").to_numpy()
        told: dict[str, Any] = {
            "domain": DOMAIN,
            "model": first.model,
            "booster": first.booster,
            "calibration": first.calibration,
            "simple": first.simple,
            "fitted": first.fitted,
            "view_versions": first.manifest.views,
            "record": first.manifest.record,
            "model_version": "variant",
            "rollback_target": first.digest,
            "golden": (pl.read_ipc(first.folder / "golden_rows.arrow"), scores),
            "code": package,
        }
        return write_bundle(self.platform.bundles, **{**told, **changed})

    def rows(self, day: str = DAY) -> pl.DataFrame:
        """The log of a day, by time."""
        log = logged(self.platform, DOMAIN, day)
        assert log is not None
        return log.drop("day").collect().sort("received", "request_id")

    def replayed(self, rows: pl.DataFrame | None = None) -> list[Replayed]:
        """Give what was answered again."""
        return replay(self.platform, DOMAIN, self.rows() if rows is None else rows)


def flip_bit(path: Path, *, at: float = 0.5) -> None:
    """Turn one bit over, so far into a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0b100
    path.chmod(0o644)
    path.write_bytes(content)


def only(replayed: Sequence[Replayed]) -> Verdict:
    """The verdict of the one answer there is."""
    (one,) = replayed
    return one.verdict


def outcomes(replayed: Sequence[Replayed]) -> dict[str, int]:
    """`outcome cause` -> how many."""
    told = [" ".join(filter(None, (each.verdict.outcome, each.verdict.cause))) for each in replayed]
    return {name: told.count(name) for name in sorted(set(told))}
