"""Readiness: whether this process may be given traffic, and if not, why, in words.

Being alive is not being ready: a model worker must be reached and score golden rows as in evaluation, and the store
must hold the view versions that the model was trained on.
"""

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mlplatform.errors import GoldenMismatch, MlplatformError
from mlplatform.features.online.store import OnlineStore
from mlplatform.registry.bundle import Bundle
from mlplatform.scoring.booster import Matrix, Scores, matrix
from serving.predictor import Predictor
from serving.roster import Roster
from serving.view_reader import check_view_version

SECONDS = 2.0
"""Time for the golden rows; a load balancer asks again."""


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    reason: str
    """Why it does not hold; empty when it does."""

    @property
    def holds(self) -> bool:
        """Whether it holds."""
        return not self.reason


async def readiness(predictor: Predictor, store: OnlineStore, roster: Roster | None) -> list[Check]:
    """Every check, also after one has failed: a person wants the whole list at once."""
    checks = [Check("model workers", _workers(predictor, roster))]
    if checks[0].holds:
        checks.append(Check("golden rows", await _golden(predictor)))
    for reference in predictor.bundle.manifest.views:
        checks.append(Check(f"view {reference}", _view(predictor.bundle, store, reference)))
    return checks


def _workers(predictor: Predictor, roster: Roster | None) -> str:
    if predictor.workers.connected:
        return ""
    refusal = roster.refused.get(predictor.bundle.digest, "") if roster else ""
    return refusal or "no model worker is reached; the supervisor's log says why"


async def _golden(predictor: Predictor) -> str:
    """Have a worker score the golden rows: the way that every request goes."""
    bundle = predictor.bundle
    numbers, expected = _golden_rows(bundle)
    try:
        scores = await predictor.workers.score(numbers, deadline=time.monotonic() + SECONDS)
    except (MlplatformError, TimeoutError) as error:
        return str(error) or f"the golden rows were not scored within {SECONDS:g} s"
    differing = int((scores.reshape(len(scores), -1).view(np.uint64) != expected.view(np.uint64)).any(axis=1).sum())
    if differing:
        return str(GoldenMismatch(bundle.manifest.model, bundle.manifest.short_digest, differing, len(expected)))
    return ""


@lru_cache(maxsize=4)
def _golden_rows(bundle: Bundle) -> tuple[Matrix, Scores]:
    features, expected = bundle.golden()
    return matrix(features), expected


def _view(bundle: Bundle, store: OnlineStore, reference: str) -> str:
    try:
        check_view_version(bundle, store, reference)
    except MlplatformError as error:
        return str(error)
    return ""
