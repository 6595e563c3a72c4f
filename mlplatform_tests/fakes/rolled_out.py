"""A rollout without gateways: a ledger with a champion and a challenger, and evidence that says what a test wants."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.rollout import Rollout
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.rollout import moves
from mlplatform.rollout.analysis import Look, Pairs, Split, Trip
from mlplatform_tests.fakes.synthetic_home import platform_in

NAME = "synthetic/late_order"
CHAMPION, CHALLENGER = "a" * 64, "b" * 64


def declared(rollout: Rollout | None) -> ModelSpec:
    """The synthetic domain's binary model with a rollout."""
    return replace(DOMAIN.model("late_order"), rollout=rollout)


def champion_in(home: Path, digest: str = CHAMPION) -> Platform:
    """A platform whose ledger has a champion."""
    platform = platform_in(home)
    promoted(platform, digest, alias="champion")
    return platform


def promoted(platform: Platform, digest: str, *, alias: Any = "challenger") -> Entry:
    """What the promotion records of a version that passed the gate."""
    (platform.bundles / digest).mkdir(parents=True, exist_ok=True)
    return Ledger(platform).append(
        NAME,
        action="promote",
        alias=alias,
        to_manifest=digest,
        actor="dagster",
        reason="the gate says pass",
        evidence={"recipe": f"2024-01-25-{digest[:6]}"},
    )


def rolling_out(home: Path, model: ModelSpec, digest: str = CHALLENGER) -> Platform:
    """A platform whose challenger has its first step."""
    platform = champion_in(home)
    promoted(platform, digest)
    moves.start(platform, DOMAIN, model, by="ann", reason="it passed")
    return platform


class Evidence:
    """Gives the evidence that a test wants, and tells what it was asked for."""

    def __init__(self, says: str = "good") -> None:
        self.says = says
        self.asked: dict[str, Any] = {}

    def __call__(self, *_: object, now: datetime, step_since: datetime, bake: timedelta, **asked: Any) -> Look:
        """Pairs that are `good`, `harmful` or too `few`, or a breaker that has `tripped`."""
        self.asked = {"now": now, "step_since": step_since, "bake": bake, **asked}
        n = 20 if self.says == "few" else 3000
        harm = 0.3 if self.says == "harmful" else 0.0
        district = np.resize(["hill", "harbour", "centre"], n)
        pairs = Pairs(
            harms={"failures": np.zeros(n), "log_loss": np.full(n, harm)},
            margins={"failures": 0.01, "log_loss": 0.02},
            segments=pl.DataFrame({"district": district}),
            by_segment=("log_loss",),
        )
        trips = (Trip(name="breaker_open", reason="its breaker is open"),) if self.says == "tripped" else ()
        share = asked["share"]
        split = Split(challenger=round(10_000 * share), keys=10_000, share=share) if share else None
        return Look(pairs=pairs, now=now, step_since=step_since, bake=bake, split=split, trips=trips)
