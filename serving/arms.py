"""The arms: the model versions that a gateway worker has open, and which of them answers whom.

The roster says which versions have workers; each is opened once and kept as long as it is named. The plan says which of
them is champion and which is challenger. So a step of a rollout, and a rollback, is a change of references between two
requests: nothing is loaded, nothing is connected, and what is under way ends where it began.

Invariants: whoever has answered once, answers on, whatever becomes of the plan, the roster or a version's files; a
version that is not named any more is closed when it has answered what it holds; nothing here waits for a version that
is being opened.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.errors import BundleCorrupt, MlplatformError
from mlplatform.rollout.plan_file import WatchedPlan, plan_path
from serving.batch import Batch
from serving.live_model import LiveModel
from serving.metrics import Metrics
from serving.request_fit import RequestFit
from serving.roster import Roster, Version, read_roster
from serving.routing import Route, Routing
from serving.shadow import Shadow

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0
"""Until a version that could not be opened is tried again: its files may have been on their way."""


class Arms:
    """The open versions of one model.

    Parameters
    ----------
    folder : the supervisor's, with the roster
    home : the platform's, with the plan; None: a bundle was named by hand, and there is no plan
    open_version : opens a version beside those there are; raises `MlplatformError` where it must not be served
    log : as that of `LiveModel`
    """

    def __init__(
        self,
        folder: Path,
        home: Path | None,
        *,
        open_version: Callable[[Version], Awaitable[LiveModel]],
        log: Callable[[LiveModel, Batch], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.champion: LiveModel | None = None
        self.challenger: LiveModel | None = None
        """None: there is none, or it cannot answer here."""
        self.routing = Routing(None)
        self.fit = RequestFit((), ())
        """From the champion's requests to the challenger's."""
        self.roster: Roster | None = None
        self.faults: dict[str, str] = {}
        """Digest -> why it is not open, or does not take part."""
        self._folder = folder
        self._home = home
        self._open_version = open_version
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._open: dict[str, LiveModel] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._again: dict[str, tuple[Version, float]] = {}
        self._watched: WatchedPlan | None = None
        self._model = ""
        """Of every version; empty until one is open."""
        self._sticky: int | None = None
        self._shadows: list[Shadow] = []
        self._parts: tuple[LiveModel | None, LiveModel | None, bool] = (None, None, False)

    @property
    def fault(self) -> str:
        """Why nobody answers."""
        live = self.roster.live.digest if self.roster is not None else ""
        return self.faults.get(live, "the model is being loaded")

    async def start(self) -> None:
        """Open the version that is live; the others follow while it answers."""
        self.look()
        if self.roster is not None and self.roster.live.digest in self._opening:
            await self._opening[self.roster.live.digest]

    def look(self) -> None:
        """Follow the roster and the plan."""
        self.roster = roster = read_roster(self._folder)
        if self._watched is not None:
            self._watched.look()
        named = {each.digest: each for each in (roster.live, roster.warm, roster.challenger) if each is not None}
        for digest, version in named.items():
            live = self._open.get(digest)
            if live is None:
                self._begin_to_open(version)
            elif live.version != version:
                live.follow(version)
        self.faults = {digest: fault for digest, fault in self.faults.items() if digest in named}
        self._settle(roster)
        for digest in self._open.keys() - named.keys():
            if self._open[digest] not in (self.champion, self.challenger):
                self._close(self._open.pop(digest))

    def of(self, champion: LiveModel, values: tuple[Any, ...], request_id: str) -> tuple[LiveModel, Route]:
        """Who answers a request, and how it came there."""
        route = self.routing.only
        if route is not None:
            return champion, route
        return self._of_key(champion, request_id if self._sticky is None else values[self._sticky])

    def of_rows(self, champion: LiveModel, rows: pl.DataFrame, names: Sequence[str]) -> list[tuple[LiveModel, Route]]:
        """The same for each row of a table."""
        if (route := self.routing.only) is not None:
            return [(champion, route)] * rows.height
        sticky = _sticky(champion)
        # By its name: the columns of a table stand as their sender put them.
        keys = names if sticky is None else rows.get_column(_columns(champion)[sticky].name).to_list()
        return [self._of_key(champion, key) for key in keys]

    def _of_key(self, champion: LiveModel, key: object) -> tuple[LiveModel, Route]:
        if key is None:
            self._metrics.rerouted(champion.name, "no_key")
            return champion, self.routing.champion
        route = self.routing.of(str(key))
        if route.arm == "champion":
            return champion, route
        challenger = self.challenger
        if challenger is None or not challenger.predictor.workers.connected:
            return champion, self.instead(champion, "not_open")
        return challenger, route

    def instead(self, champion: LiveModel, reason: str) -> Route:
        """The route of a request that the champion answers though the plan gives it to the challenger."""
        self._metrics.rerouted(champion.name, reason)
        return self.routing.instead

    def told(self) -> dict[str, Any]:
        """What `/model` says of them."""
        roster, plan = self.roster, self.routing.plan
        named = {
            "champion": self.champion.version.digest if self.champion is not None else None,
            "challenger": plan.challenger if plan is not None else None,
            "warm": roster.warm.digest if roster is not None and roster.warm is not None else None,
        }
        return {
            "aliases": {alias: digest for alias, digest in named.items() if digest is not None},
            "plan": {
                "version": self.routing.version,
                "mode": plan.mode if plan is not None else "full",
                "share": _share(self.routing),
                "challenger_open": self.challenger is not None and self.challenger.predictor.workers.connected > 0,
                "fault": self._plan_fault(),
            },
            "refused": {**self.faults, **(roster.refused if roster is not None else {})},
        }

    def _plan_fault(self) -> str:
        """Why the plan is not followed, or not in all."""
        plan = self.routing.plan
        found = [self._watched.fault] if self._watched is not None and self._watched.fault else []
        if self.routing.standing_in and plan is not None:
            found.append(f"its champion {plan.champion[:12]} is not open here, so another version answers everybody")
        if plan is not None and plan.challenger is not None and plan.challenger not in self._open:
            found.append(f"its challenger {plan.challenger[:12]} is not open here")
        return "; ".join(found)

    def show(self) -> None:
        """Set the figures that are states and not events."""
        if self.champion is not None:
            self.champion.show()
            self._metrics.share(self.champion.name, _share(self.routing))

    async def close(self) -> None:
        """Answer what is there, then let go of the workers."""
        for task in self._opening.values():
            task.cancel()
        for shadow in self._shadows:
            shadow.close()
        await asyncio.gather(*(live.close() for live in self._open.values()), *self._closing)

    def _begin_to_open(self, version: Version) -> None:
        tried, again = self._again.get(version.digest, (None, 0.0))
        if version.digest in self._opening or (tried == version and self._clock() < again):
            return
        self._again[version.digest] = (version, self._clock() + AGAIN_SECONDS)
        self._opening[version.digest] = asyncio.get_running_loop().create_task(self._opened(version))

    async def _opened(self, version: Version) -> None:
        try:
            await self._live_first(version)
            live = await self._open_version(version)
            if fault := self._stranger(version, live):
                self._close(live)
                raise BundleCorrupt(version.bundle, fault)
        except MlplatformError as error:
            if str(error) != self.faults.get(version.digest):
                logger.error("%s is not served: %s", version.digest[:12], error)
            self.faults[version.digest] = str(error)
            return
        except Exception as error:
            # Whatever it is, who answers goes on, and the next attempt may succeed.
            logger.exception("%s could not be opened", version.digest[:12])
            self.faults[version.digest] = f"{type(error).__name__}: {error}"
            return
        finally:
            self._opening.pop(version.digest, None)
        self.faults.pop(version.digest, None)
        self._open[version.digest] = live
        self._model = live.name
        if self._watched is None and self._home is not None:
            self._watched = WatchedPlan(plan_path(self._home, live.name), live.name)
            self._watched.look()
        if self.roster is not None:
            self._settle(self.roster)

    async def _live_first(self, version: Version) -> None:
        """Wait for the version that is live, where none has told yet which model this is."""
        first = self._opening.get(self.roster.live.digest) if self.roster is not None else None
        if not self._model and first is not None and first is not self._opening.get(version.digest):
            await asyncio.wait([first])

    def _stranger(self, version: Version, live: LiveModel) -> str:
        """Why what was opened is not what the roster names; empty where it is."""
        digest = live.predictor.bundle.digest
        if digest != version.digest:
            return f"it is {digest[:12]}, and the roster names {version.digest[:12]}"
        if self._model and live.name != self._model:
            return f"it is a version of {live.name}, and this service serves {self._model}"
        return ""

    def _settle(self, roster: Roster) -> None:
        """Give each its part. Nothing awaits here: a request sees all of it, or nothing."""
        plan = self._watched.plan if self._watched is not None else None
        # Whoever stands in for the plan's champion is none of the two that it compares.
        standing_in = plan is not None and plan.champion not in self._open
        if plan is not self.routing.plan or standing_in != self.routing.standing_in:
            self.routing = Routing(plan, standing_in=standing_in)
        wanted = [plan.champion] if plan is not None else []
        # One that has no successor yet answers on.
        champion = next(
            (self._open[each] for each in (*wanted, roster.live.digest) if each in self._open), self.champion
        )
        challenger = self._open.get(plan.challenger) if plan is not None and plan.challenger is not None else None
        if challenger is champion or standing_in:
            challenger = None
        parts = (champion, challenger, self.routing.shadowed)
        if champion is None or parts == self._parts:
            return
        self._parts = parts
        # Of a version that is open it can only say that it did not fit, to whom it may fit now.
        self.faults = {digest: fault for digest, fault in self.faults.items() if digest not in self._open}
        for shadow in self._shadows:
            shadow.close()
        for each in (self.champion, self.challenger):
            if each is not None:
                each.shadow = None
        self._shadows = []
        self.champion, self.challenger, self._sticky = champion, None, _sticky(champion)
        if challenger is None:
            return
        self.fit = RequestFit(_columns(champion), _columns(challenger))
        if self.fit.fault:
            self.faults[challenger.version.digest] = self.fit.fault
            logger.error("%s takes no part: %s", challenger.version.digest[:12], self.fit.fault)
            return
        self.challenger = challenger
        if self.routing.shadowed:
            self._shade(champion, challenger, self.fit)
            back = RequestFit(_columns(challenger), _columns(champion))
            if not back.fault:
                self._shade(challenger, champion, back)

    def _shade(self, answering: LiveModel, scoring: LiveModel, fit: RequestFit) -> None:
        shadow = Shadow(scoring, answering, fit=fit, log=self._log, clock=self._clock)
        answering.shadow = shadow.take
        self._shadows.append(shadow)

    def _close(self, live: LiveModel) -> None:
        task = asyncio.get_running_loop().create_task(live.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _share(routing: Routing) -> float:
    return 0.0 if routing.plan is None or routing.only is not None else routing.plan.share


def _columns(live: LiveModel) -> Sequence[Column]:
    return live.predictor.bundle.domain.requests.columns


def _sticky(live: LiveModel) -> int | None:
    """Place of the request column that the plan draws by; None: it draws by the request's id."""
    rollout = live.predictor.bundle.model.rollout
    names = [column.name for column in _columns(live)]
    return names.index(rollout.sticky) if rollout is not None and rollout.sticky is not None else None
