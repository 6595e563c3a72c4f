"""What both halves of `make bench-features` are made of: the made-up views, the peers' environments, the aims."""

import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from bench import aims
from mlplatform.domain.column import Column
from mlplatform.domain.domain import Domain
from mlplatform.domain.view import Feature, FeatureView
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.stage import Draft, Written
from mlplatform.features.tables import Tables, partition_end
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform

HOME = Path("var/bench/features")
OURS_HOME = HOME / "home"
TTL = timedelta(days=30)
FIRST = date(2023, 1, 1)
FEATURES = 5


@dataclass(frozen=True)
class Made:
    """A made-up view: `keys` entities, each in every one of `partitions` days, spread over the year."""

    name: str
    keys: int
    partitions: int

    @property
    def key(self) -> str:
        """Its key column."""
        return f"key_{self.name}"

    @property
    def features(self) -> list[str]:
        """Its feature columns."""
        return [f"{self.name}_{number}" for number in range(FEATURES)]

    @property
    def days(self) -> list[date]:
        """Its partitions."""
        return [FIRST + timedelta(days=number * 365 // self.partitions) for number in range(self.partitions)]


VIEWS = (Made("a", 100_000, 30), Made("b", 10_000, 100), Made("c", 1_000, 365))


def domain(made: Sequence[Made] = VIEWS) -> Domain:
    """Made-up views as declared to us."""
    keys = tuple(Column(name=each.key, dtype=pl.Int64(), meaning="made up") for each in made)
    (facts,) = DOMAIN.derived
    views = tuple(
        FeatureView(
            name=each.name,
            meaning="made up",
            facts=facts.name,
            entity=(each.key,),
            features=tuple(Feature(name=name, dtype=pl.Float64(), meaning="made up") for name in each.features),
            look_back=timedelta(days=1),
            ttl=TTL,
            function=_never,
        )
        for each in made
    )
    return replace(DOMAIN, derived=(replace(facts, columns=(*facts.columns, *keys)),), views=views, models=())


def _never(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
    """Nothing is computed here: the values are made up."""
    return facts


def make_views(made: Sequence[Made], home: Path) -> None:
    """Views as files for the peers, and as tables for us below `home`; made when they were not."""
    chance = np.random.default_rng(20230101)
    declared = domain(made)
    tables = Tables(Platform(home=home.absolute()), declared)
    for each, view in zip(made, declared.views, strict=True):
        file = HOME / f"{each.name}.parquet"
        if file.exists():
            continue
        home.mkdir(parents=True, exist_ok=True)
        frames = {}
        for day in each.days:
            at = pl.lit(partition_end(day.isoformat()), dtype=instant)
            values = {name: chance.standard_normal(each.keys) for name in each.features}
            keys = {each.key: np.arange(each.keys)}
            frames[day.isoformat()] = pl.DataFrame(keys | values).with_columns(event_time=at, available_at=at)
        written = Written(run_id="bench", code_version="1", environment="bench", known_at=datetime.now(UTC))
        tables.features(view).append({day: Draft(rows=rows) for day, rows in frames.items()}, written)
        pl.concat(frames.values()).drop("available_at").write_parquet(file)


def python_with(name: str, packages: Sequence[str]) -> Path:
    """The Python of an environment with some packages, installed when they were not; without any it is ours."""
    if not packages:
        return Path(sys.executable)
    folder = HOME.absolute() / "environments" / name
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != " ".join(packages):
        print(f"installing {packages[0]} and what it needs", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *packages]
        subprocess.run(install, check=True)
        stamp.write_text(" ".join(packages))
    return folder / "bin" / "python"


def spread(values: Sequence[float]) -> str:
    """Minimum, median and maximum."""
    return f"{min(values):.2f} - {statistics.median(values):.2f} - {max(values):.2f}"


aim = partial(aims.aim, form=".2f")
"""Print an aim, and whether it is met."""
