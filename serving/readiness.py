"""Readiness: whether this process may be given traffic, and if not, why, in words.

Being alive is not being ready: the golden rows are scored again, from request to score, on the declared device, and the
store must hold the view versions that the model was trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mlplatform.errors import MlplatformError
from mlplatform.features.online import OnlineStore
from mlplatform.registry.bundle import Bundle
from serving.predictor import check_view_version


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


def readiness(bundle: Bundle, store: OnlineStore) -> list[Check]:
    """Every check, also after one has failed: a person wants the whole list at once."""
    checks = [_check("device", lambda: bundle.booster)]
    if checks[0].holds:
        checks.append(_check("golden rows", bundle.check_golden))
    for reference in bundle.manifest.views:
        checks.append(_check(f"view {reference}", partial(check_view_version, bundle, store, reference)))
    return checks


def _check(name: str, attempt: Callable[[], object]) -> Check:
    try:
        attempt()
    except MlplatformError as error:
        return Check(name, str(error))
    return Check(name, "")
