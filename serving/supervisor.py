"""The supervisor: starts gateway and model workers, brings back those that die or hang, and follows the plan.

BentoML's worker process becomes this one (`service`): it keeps the process id and the listening socket, so whoever
started the service goes on watching the right process, and what BentoML does about dead workers (nothing, in a
container) no longer matters. It takes no request itself, and imports neither Polars nor XGBoost.

Gateway workers learn which model workers there are from the roster. A model version is named there once all its workers
have scored its golden rows; the champion that was replaced stays warm, with one worker, until a third comes. Whichever
version has a worker already becomes the champion at once, and gets what it lacks afterwards: that is why a rollback
takes no start of a process. A bundle that its workers refuse never gets into the roster: what serves goes on, and the
roster tells why.
"""

import argparse
import hashlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlplatform.rollout.plan_file import WatchedPlan
from mlplatform.settings import child_environment, silence_telemetry
from serving.child_process import Child
from serving.roster import Roster, Version, write_roster

logger = logging.getLogger(__name__)

LIVE_WORKERS = 2
"""Of a version that answers somebody. A batch whose worker dies is scored by the other: one is too few."""

WARM_WORKERS = 1

SHADOW_WORKERS = 1
"""Of a challenger that answers nobody. It goes behind the others: nobody waits for it."""

TICK_SECONDS = 0.25

REFUSED_AFTER = 120.0
"""Seconds after which a new version whose workers are still not ready is given up: they end again and again."""

AGAIN_SECONDS = 60.0
"""Until a version that was given up is tried again, while it is still wanted: its files may have been on their way."""

GRACE_SECONDS = 5.0
"""From a worker's leaving the roster to its end: batches that are on their way to it are answered."""

DRAIN_SECONDS = 25.0


@dataclass
class Served:
    """A model version and its workers."""

    digest: str
    bundle: Path
    workers: list[Child]
    asked: float
    """When it was asked to serve, seconds."""

    since: str = field(default_factory=lambda: _now())
    entered: bool = False
    """Whether gateway workers were told of it: all its workers were ready once."""

    @property
    def ready(self) -> bool:
        """Whether every worker has scored the golden rows."""
        return all(child.ready for child in self.workers)

    @property
    def answers(self) -> bool:
        """Whether one of its workers has: it could be the champion at once."""
        return any(child.ready for child in self.workers)

    @property
    def refusal(self) -> str:
        """Why a worker refuses the bundle; empty where none does."""
        return next((child.refused for child in self.workers if child.refused), "")

    def given_up(self, now: float) -> str:
        """Why it will not serve; empty while it may."""
        if self.refusal or now - self.asked < REFUSED_AFTER:
            return self.refusal
        said = next((child.last_words for child in self.workers if child.last_words), "nothing")
        return f"its workers were not ready within {REFUSED_AFTER:.0f} s; the last thing one said: {said}"

    def version(self) -> Version:
        """As the roster names it."""
        sockets = tuple(str(child.sign) for child in self.workers)
        return Version(digest=self.digest, bundle=str(self.bundle), sockets=sockets, since=self.since)


class Supervisor:
    """Keeps a service alive.

    Parameters
    ----------
    listening : file descriptor of the socket that gateway workers accept from
    bundle : folder of the model version to begin with
    watched : the plan, which names champion and challenger; None: the bundle is all there will ever be
    bundles : folder of all bundles, by digest
    gateways : number of gateway workers
    flags : command that brings the plan here from elsewhere, but for the file of its signs of life; empty: none
    """

    def __init__(
        self,
        *,
        listening: int,
        bundle: Path,
        watched: WatchedPlan | None,
        bundles: Path,
        gateways: int,
        flags: Sequence[str] = (),
    ) -> None:
        self._listening = listening
        self._watched = watched
        self._told = ""
        """What was wrong with the plan when it was last said."""
        self._bundles = bundles
        # A model worker scores with one thread, a gateway computes features of small batches with one: a team of
        # threads costs more than it saves, and would fight for cores with its neighbours.
        self._environment = child_environment(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1")
        self._folder = Path(tempfile.mkdtemp(prefix="mlplatform-"))
        self._started = 0
        self._refused: dict[str, tuple[str, float]] = {}
        """Digest -> why it was given up, and when it is tried again."""
        self._roster: Roster | None = None
        self._live = self._served(_digest(bundle), bundle, LIVE_WORKERS)
        self._live.entered = True
        self._warm: Served | None = None
        self._challenger: Served | None = None
        self._next: Served | None = None
        """The champion that the plan names, while it is being started."""
        self._retired: list[tuple[float, Child]] = []
        self._gateways = [self._gateway(number, gateways) for number in range(gateways)]
        self._flags = [self._source(flags)] if flags else []

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code."""
        end = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, {*end, signal.SIGCHLD})
        try:
            while True:
                self._tick(time.monotonic())
                # What it returns is not looked at: after a pause (SIGSTOP, a frozen container) CPython 3.11 gives
                # back memory that nothing was written to, which reads like any signal.
                signal.sigtimedwait({signal.SIGCHLD}, TICK_SECONDS)
                if signal.sigpending() & end:
                    return 0
        finally:
            self._stop()

    def _tick(self, now: float) -> None:
        for child in self._gateways:
            child.keep(now, self._environment, (self._listening,))
        for child in (*self._model_workers(), *self._flags):
            child.keep(now, self._environment, ())
        for due, child in list(self._retired):
            if due <= now:
                self._retired.remove((due, child))
                child.ask_to_end()
                child.end(within=1.0)
        self._follow(now)
        self._write_roster()

    def _follow(self, now: float) -> None:
        """Go by the plan: start what it names, let take over what is ready, let go of what it names no more."""
        if self._watched is not None:
            self._watched.look()
            if self._watched.fault != self._told:
                self._told = self._watched.fault
                logger.warning("%s", self._told or "the plan is readable again and followed")
            if plan := self._watched.plan:
                self._want_champion(plan.champion, now)
                self._want_challenger(plan.challenger, plan.share > 0 and plan.mode in ("canary", "a/b"), now)
        self._welcome(now)
        self._fit(self._live, LIVE_WORKERS, now)
        if self._warm is not None:
            self._fit(self._warm, WARM_WORKERS, now)

    def _want_champion(self, wanted: str, now: float) -> None:
        if self._next is not None and self._next.digest != wanted:
            self._retire(self._next.workers, now, grace=0.0)
            self._next = None
        if wanted == self._live.digest or self._next is not None:
            return
        held = next((each for each in (self._warm, self._challenger) if each and each.digest == wanted), None)
        if held is not None and held.answers:
            self._take_over(held, now)
        elif held is not None:
            self._let_go(held)
            held.asked = now
            self._next = held
        elif not self._given_up(wanted, now):
            self._next = self._served(wanted, self._bundles / wanted, LIVE_WORKERS)
            logger.warning("starting workers of %s", wanted[:12])

    def _want_challenger(self, wanted: str | None, answering: bool, now: float) -> None:
        if self._challenger is not None and self._challenger.digest != wanted:
            logger.warning("%s is a challenger no more", self._challenger.digest[:12])
            self._retire(self._challenger.workers, now)
            self._challenger = None
        if wanted is None or wanted == self._live.digest or (self._next is not None and wanted == self._next.digest):
            return
        if self._challenger is None and self._warm is not None and self._warm.digest == wanted:
            self._challenger, self._warm = self._warm, None
        workers = LIVE_WORKERS if answering else SHADOW_WORKERS
        if self._challenger is not None:
            self._fit(self._challenger, workers, now, behind=not answering)
        elif not self._given_up(wanted, now):
            self._challenger = self._served(wanted, self._bundles / wanted, workers, behind=not answering)
            logger.warning("starting workers of challenger %s", wanted[:12])

    def _welcome(self, now: float) -> None:
        """Let those that were started take their place once they are ready, or drop them once they are refused."""
        for served in (self._next, self._challenger):
            if served is None or (served is self._challenger and served.entered):
                continue
            if reason := served.given_up(now):
                self._refused[served.digest] = (reason, now + AGAIN_SECONDS)
                logger.error("%s does not serve: %s", served.digest[:12], reason)
                self._retire(served.workers, now, grace=0.0)
                self._let_go(served)
            elif served.ready:
                served.entered = True
                self._refused.pop(served.digest, None)
                if served is self._next:
                    self._take_over(served, now)

    def _take_over(self, champion: Served, now: float) -> None:
        """Let a version be live that has a worker; the one before it stays warm."""
        self._let_go(champion)
        if self._warm is not None:
            self._retire(self._warm.workers, now)
        champion.entered, champion.since = True, _now()
        self._refused.pop(champion.digest, None)
        self._live, self._warm = champion, self._live
        logger.warning("%s serves; %s stays warm", self._live.digest[:12], self._warm.digest[:12])

    def _let_go(self, served: Served) -> None:
        """Empty the place in which a version stood."""
        self._warm = None if self._warm is served else self._warm
        self._challenger = None if self._challenger is served else self._challenger
        self._next = None if self._next is served else self._next

    def _fit(self, served: Served, count: int, now: float, *, behind: bool = False) -> None:
        """Bring a version to so many workers of that kind; those that are too many go once so many are ready."""
        fitting = sorted((child for child in served.workers if child.behind == behind), key=lambda each: not each.ready)
        if len(fitting) < count:
            served.workers += [
                self._worker(served.digest, served.bundle, behind=behind) for _ in range(count - len(fitting))
            ]
        elif len(served.workers) > count and all(child.ready for child in fitting[:count]):
            self._retire([child for child in served.workers if child not in fitting[:count]], now)
            served.workers = fitting[:count]

    def _retire(self, workers: list[Child], now: float, *, grace: float = GRACE_SECONDS) -> None:
        self._retired += [(now + grace, child) for child in workers]

    def _given_up(self, digest: str, now: float) -> bool:
        return digest in self._refused and now < self._refused[digest][1]

    def _model_workers(self) -> list[Child]:
        versions = (self._live, self._warm, self._challenger, self._next)
        return [child for served in versions if served for child in served.workers]

    def _write_roster(self) -> None:
        challenger = self._challenger if self._challenger and self._challenger.entered else None
        refused = {digest: reason for digest, (reason, _) in self._refused.items()}
        for served in (self._live, challenger):
            if served and served.refusal and not served.ready:
                refused[served.digest] = served.refusal
        roster = Roster(
            live=self._live.version(),
            warm=self._warm.version() if self._warm else None,
            challenger=challenger.version() if challenger else None,
            refused=refused,
        )
        if roster != self._roster:
            self._roster = roster
            write_roster(self._folder, roster)

    def _served(self, digest: str, bundle: Path, workers: int, *, behind: bool = False) -> Served:
        made = [self._worker(digest, bundle, behind=behind) for _ in range(workers)]
        return Served(digest, bundle, made, time.monotonic())

    def _worker(self, digest: str, bundle: Path, *, behind: bool = False) -> Child:
        self._started += 1
        name = f"worker-{self._started}"
        socket = self._folder / f"{name}.sock"
        command = [sys.executable, "-m", "serving.model_worker", "--bundle", str(bundle), "--socket", str(socket)]
        named = f"model worker {self._started} ({digest[:12]})"
        return Child(named, command, socket, self._folder / f"{name}.log", behind=behind)

    def _gateway(self, number: int, gateways: int) -> Child:
        sign = self._folder / f"gateway-{number}"
        command = [sys.executable, "-m", "serving.gateway_worker", "--listening", str(self._listening)]
        command += ["--folder", str(self._folder), "--number", str(number), "--of", str(gateways)]
        return Child(f"gateway worker {number}", command, sign, self._folder / f"gateway-{number}.log", heard=True)

    def _source(self, command: Sequence[str]) -> Child:
        sign = self._folder / "flags"
        return Child("flag source", [*command, "--sign", str(sign)], sign, self._folder / "flags.log", heard=True)

    def _stop(self) -> None:
        """Gateways first, so that what they hold is still scored."""
        until = time.monotonic() + DRAIN_SECONDS
        for children in (
            [*self._gateways, *self._flags],
            [*self._model_workers(), *(child for _, child in self._retired)],
        ):
            for child in children:
                child.ask_to_end()
            for child in children:
                child.end(within=until - time.monotonic())
        shutil.rmtree(self._folder, ignore_errors=True)


def _digest(bundle: Path) -> str:
    """Digest of the bundle in a folder; its manifest is hashed only by whoever loads it."""
    try:
        return hashlib.sha256((bundle / "manifest.yaml").read_bytes()).hexdigest()
    except OSError:
        return bundle.name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main() -> int:
    """Run as `python -m serving.supervisor`."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listening", type=int, required=True)
    arguments.add_argument("--bundle", type=Path, required=True)
    arguments.add_argument("--plan", type=Path)
    arguments.add_argument("--model", default="")
    arguments.add_argument("--flags", default="")
    arguments.add_argument("--home", type=Path)
    arguments.add_argument("--bundles", type=Path, required=True)
    arguments.add_argument("--gateways", type=int, required=True)
    given = arguments.parse_args()
    silence_telemetry()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    os.set_inheritable(given.listening, True)
    flags = [sys.executable, "-m", "serving.remote_plan", "--flags", given.flags]
    flags += ["--model", given.model, "--home", str(given.home)]
    return Supervisor(
        listening=given.listening,
        bundle=given.bundle,
        watched=WatchedPlan(given.plan, given.model) if given.plan else None,
        bundles=given.bundles,
        gateways=given.gateways,
        flags=flags if given.flags else (),
    ).run()


if __name__ == "__main__":
    sys.exit(main())
