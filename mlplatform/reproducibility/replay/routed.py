"""Whether a request went where the plan sends it: the plan that the row names, its key, the arm, the manifest.

The ledger gives every plan that there was. A row whose plan is none of them was routed by another provider, or by none;
that cannot be judged and is no divergence. Nor is what a plan leaves to chance, or to whoever had to stand in.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import polars as pl

from mlplatform.errors import BundleError, DataError, DeclarationError, LedgerBroken, PlanInvalid
from mlplatform.features.integrity import unreadable
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Ledger
from mlplatform.reproducibility.replay.logged import asked
from mlplatform.rollout.plan import Plan
from mlplatform.rollout.pointing import plan_of

followed_within = timedelta(minutes=5)
"""After an entry of the ledger, every gateway goes by it: they look for a new plan many times in this."""


class Routed(NamedTuple):
    """What is found of one row."""

    fault: str = ""
    """Why it should have gone elsewhere; empty where it went where it should."""

    note: str = ""


class Plans:
    """Every plan that a model was ever routed by, by its version."""

    def __init__(self, platform: Platform, model: str) -> None:
        self._platform = platform
        self._model = model
        self._left: dict[str, datetime] = {}
        """Version -> when another one followed."""

    @cached_property
    def by_version(self) -> Mapping[str, Plan]:
        """Version -> plan.

        Raises
        ------
        LedgerBroken, DataError, OSError, polars.exceptions.PolarsError
            The ledger cannot be read.
        """
        entries = Ledger(self._platform).entries(self._model)
        found: dict[str, Plan] = {}
        before: Plan | None = None
        for end in range(1, len(entries) + 1):
            try:
                plan = plan_of(self._model, entries[:end])
            except PlanInvalid:
                continue  # nobody was ever routed by it
            if plan is not None:
                found[plan.version] = plan
            if before is not None and (plan is None or plan.version != before.version):
                self._left[before.version] = entries[end - 1].at
            before = plan
        return found

    def routed(self, rows: pl.DataFrame, own: Bundle) -> list[Routed]:
        """What is found of each row.

        Parameters
        ----------
        rows : (n, …) of the log, of one manifest
        own : its bundle
        """
        try:
            plans = self.by_version
        except (LedgerBroken, DataError, *unreadable) as error:
            told = " ".join(str(error).split())[:300]
            return [
                Routed(note=f"the routing was not looked at, since the ledger cannot be read: {told}")
            ] * rows.height
        found = [Routed(note="the row names no plan")] * rows.height
        places: dict[str, list[int]] = {}
        for place, version in enumerate(rows.get_column("plan")):
            if version is not None:
                places.setdefault(version, []).append(place)
        for version, at in places.items():
            plan = plans.get(version)
            if plan is None:
                unknown = Routed(note=f"no plan {version} follows from the ledger: another provider gave it")
                for place in at:
                    found[place] = unknown
                continue
            of_plan = rows[at]
            keys = self._keys(plan, of_plan, own)
            if keys is None:
                for place in at:
                    found[place] = Routed(note=f"the declaration of the champion of plan {version} is gone")
                continue
            for place, key, row in zip(at, keys, of_plan.iter_rows(named=True), strict=True):
                found[place] = self._late(version, row["received"], _judged(plan, key, row))
        return found

    def _late(self, version: str, received: datetime, judged: Routed) -> Routed:
        """The same, and that the ledger had moved on where it had: a gateway went on by a plan that it should not."""
        left = self._left.get(version)
        if judged.fault or left is None or received <= left + followed_within:
            return judged
        note = f"plan {version} was followed by another at {left:%Y-%m-%d %H:%M}, before this request came"
        return Routed(note="; ".join(filter(None, (judged.note, note))))

    def _keys(self, plan: Plan, rows: pl.DataFrame, own: Bundle) -> list[str | None] | None:
        """What the plan draws by, by the declaration of its champion, who let the requests in; None: that is gone."""
        if plan.champion == own.digest:
            champion = own
        else:
            try:
                champion = bundle_of(self._platform, plan.champion)
            except (BundleError, DataError, DeclarationError):
                return None
        rollout = champion.model.rollout
        columns = champion.domain.requests.columns
        if rollout is None or rollout.sticky is None:
            return [str(each) for each in rows.get_column("request_id")]
        place = [column.name for column in columns].index(rollout.sticky)
        read = asked(rows, columns)
        keys: list[str | None] = [None] * rows.height
        for row, values in zip(read.kept, read.values, strict=True):
            keys[row] = None if values[place] is None else str(values[place])
        return keys


def _judged(plan: Plan, key: str | None, row: Mapping[str, Any]) -> Routed:
    """What is found of a row whose plan is known."""
    shadow = row["arm"] == SHADOW
    manifests = {"champion": plan.champion, "challenger": plan.challenger}
    told = row["propensity"]
    # Of a shadow: how probable it was that it would have answered.
    answered = None if told is None else 1.0 - told if shadow else told
    if answered == 0.0:
        return Routed(note="another arm stood in for the one of the plan")
    drawn = plan.arm(key)
    if shadow:
        drawn = "champion" if drawn == "challenger" else "challenger"
    arm = next((each for each, manifest in manifests.items() if manifest == row["manifest"]), None)
    name = f"plan {plan.version}"
    if arm is None:
        return Routed(fault=f"{name} knows no manifest {row['manifest'][:12]}")
    if not shadow and row["arm"] != arm:
        return Routed(fault=f"the row says that the {row['arm']} answered, but its manifest is the {arm} of {name}")
    if arm == drawn:
        return Routed()
    if plan.exploration and plan.mode in ("canary", "a/b"):
        return Routed(note=f"{name} draws some requests anew, whatever their key: this one went to the {arm}")
    did = "scored it in the shadow" if shadow else "answered it"
    return Routed(fault=f"{name} gives the key {key!r} to the {drawn}, but the {arm} {did}")
