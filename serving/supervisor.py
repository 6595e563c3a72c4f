"""The supervisor: starts gateway and model workers, brings back those that die or hang, and swaps models.

BentoML's worker process becomes this one (`service`): it keeps the process id and the listening socket, so whoever
started the service goes on watching the right process, and what BentoML does about dead workers (nothing, in a
container) no longer matters. It takes no request itself, and imports neither Polars nor XGBoost.

Gateway workers learn which model workers there are from the roster. A model version is named there once all its workers
have scored its golden rows; the one that it replaces stays warm, with one worker, until a third comes. A bundle that
its workers refuse never gets there: what serves goes on, and the roster tells why.
"""

import argparse
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlplatform.registry.pointer import read_pointer
from mlplatform.settings import child_environment, silence_telemetry
from serving.roster import Roster, Version, write_roster

logger = logging.getLogger(__name__)

LIVE_WORKERS = 2
"""A batch whose worker dies is scored by the other: one is too few."""

WARM_WORKERS = 1

TICK_SECONDS = 0.25
SILENT_SECONDS = 4.0
"""A process that shows no sign of life for so long hangs and is killed: it is up again within 10 s."""

LONGEST_LOOK = 1.0
"""Seconds between two looks that count as silence at most: a longer gap was our own."""

READY_SECONDS = 90.0
"""From a process's start to its first sign of life, at most: imports and golden rows, on a busy machine."""

REFUSED_AFTER = 120.0
"""Seconds after which a new version whose workers are still not ready is given up: they end again and again."""

AGAIN_SECONDS = 60.0
"""Until a version that was given up is tried again, while it is still wanted: its files may have been on their way."""

FIRST_PAUSE, LONGEST_PAUSE, REFUSED_PAUSE = 0.1, 5.0, 30.0
"""Seconds before a process that ended is started again, doubled each time; longest for one that refuses its bundle."""

STEADY_SECONDS = 60.0
"""A process that has lived so long is started at once when it ends."""

REFUSED = 3
"""Exit code of a model worker that must not serve its bundle."""

DRAIN_SECONDS = 25.0


@dataclass
class Child:
    """A process that is kept alive."""

    name: str
    command: Sequence[str]
    sign: Path
    """File that the process makes when it is ready, and touches every second while it is well."""

    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    not_before: float = 0.0
    pause: float = FIRST_PAUSE
    refused: str = ""
    """Why a model worker does not serve its bundle."""

    shown: int = 0
    """When the newest sign of life came, by the clock of files; only that it changes is looked at."""

    silent: float = 0.0
    looked: float = 0.0
    last_words: str = ""
    """The last line that it wrote before it ended."""

    def keep(self, now: float, environment: dict[str, str], descriptors: tuple[int, ...]) -> None:
        """Start the process if it is not there, kill it if it hangs."""
        if self.process is None:
            if now >= self.not_before:
                self._start(now, environment, descriptors)
        elif (code := self.process.poll()) is not None:
            self._ended(now, code)
        elif self._silent_for(now) > (SILENT_SECONDS if self.sign.exists() else READY_SECONDS):
            logger.error("%s shows no sign of life. It is killed and started again", self.name)
            self.process.kill()

    def _silent_for(self, now: float) -> float:
        """Seconds without a new sign of life; since the start where there was none.

        Counted in the supervisor's own waking time: whoever was paused with us (a container, a machine) is not silent,
        and a wall clock that jumps tells nothing.
        """
        try:
            shown = self.sign.stat().st_mtime_ns
        except OSError:
            shown = 0
        self.silent = 0.0 if shown != self.shown else self.silent + min(now - self.looked, LONGEST_LOOK)
        self.shown, self.looked = shown, now
        return self.silent

    def ask_to_end(self) -> None:
        """SIGTERM: it ends when it has answered what it holds."""
        if self.process is not None:
            self.process.terminate()

    def end(self, within: float) -> None:
        """Make sure that it is gone."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, within))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        self.sign.unlink(missing_ok=True)

    def _start(self, now: float, environment: dict[str, str], descriptors: tuple[int, ...]) -> None:
        self.sign.unlink(missing_ok=True)
        with self.log.open("wb") as told:
            # What a model worker says at its end is kept, to be told; a gateway worker speaks to the service's log.
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stderr=None if descriptors else told,
                pass_fds=descriptors,
                preexec_fn=_in_child,
            )
        self.started = self.looked = now
        self.shown, self.silent = 0, 0.0

    def _ended(self, now: float, code: int) -> None:
        self.process = None
        self.sign.unlink(missing_ok=True)
        self.last_words = "".join(self.log.read_text(errors="replace").strip().splitlines()[-1:])
        if code == REFUSED:
            self.refused = self.last_words or "its worker gives no reason"
            self.pause = REFUSED_PAUSE
        else:
            self.pause = FIRST_PAUSE if now - self.started > STEADY_SECONDS else min(2 * self.pause, LONGEST_PAUSE)
        self.not_before = now + self.pause
        logger.error("%s ended (%d). It is started again in %.1f s. %s", self.name, code, self.pause, self.last_words)


@dataclass
class Served:
    """A model version and its workers."""

    digest: str
    bundle: Path
    workers: list[Child]
    asked: float
    """When it was asked to serve, seconds."""

    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def ready(self) -> bool:
        """Whether every worker has scored the golden rows."""
        return all(child.sign.exists() for child in self.workers)

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
    pointer : file that names the champion; None: the bundle is all there will ever be
    bundles : folder of all bundles, by digest
    gateways : number of gateway workers
    """

    def __init__(self, *, listening: int, bundle: Path, pointer: Path | None, bundles: Path, gateways: int) -> None:
        self._listening = listening
        self._pointer = pointer
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
        self._warm: Served | None = None
        self._next: Served | None = None
        self._retired: list[tuple[float, Child]] = []
        self._gateways = [self._gateway(number, gateways) for number in range(gateways)]

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
        for served in (self._live, self._warm, self._next):
            for child in served.workers if served else ():
                child.keep(now, self._environment, ())
        for due, child in list(self._retired):
            if due <= now:
                self._retired.remove((due, child))
                child.ask_to_end()
                child.end(within=1.0)
        self._follow(now)
        self._swap(now)
        self._write_roster()

    def _follow(self, now: float) -> None:
        """Begin to start the model version that the pointer names."""
        wanted = read_pointer(self._pointer) if self._pointer else None
        if wanted is None:
            return
        if self._next is not None and self._next.digest != wanted:
            self._drop_next()
        if wanted == self._live.digest or self._next is not None:
            return
        if wanted in self._refused and now < self._refused[wanted][1]:
            return
        if self._warm is not None and self._warm.digest == wanted:
            missing = LIVE_WORKERS - len(self._warm.workers)
            self._warm.workers += [self._worker(wanted, self._warm.bundle) for _ in range(missing)]
            self._next, self._warm = self._warm, None
            self._next.asked = now
            self._next.since = datetime.now(UTC).isoformat(timespec="seconds")
        else:
            self._next = self._served(wanted, self._bundles / wanted, LIVE_WORKERS)
        logger.warning("starting workers of %s", wanted[:12])

    def _swap(self, now: float) -> None:
        """Let the next version take over once it is ready, or drop it once it is refused."""
        if self._next is None:
            return
        if reason := self._next.given_up(now):
            self._refused[self._next.digest] = (reason, now + AGAIN_SECONDS)
            logger.error("%s does not serve: %s", self._next.digest[:12], reason)
            self._drop_next()
        elif self._next.ready:
            leaving, self._warm, self._live, self._next = self._warm, self._live, self._next, None
            self._refused.pop(self._live.digest, None)
            # Batches that are on their way to workers that go are answered before they end.
            spare = self._warm.workers[WARM_WORKERS:]
            self._warm.workers = self._warm.workers[:WARM_WORKERS]
            self._retired += [(now + 5.0, child) for child in [*spare, *(leaving.workers if leaving else ())]]
            logger.warning("%s serves; %s stays warm", self._live.digest[:12], self._warm.digest[:12])

    def _drop_next(self) -> None:
        for child in self._next.workers if self._next else ():
            child.ask_to_end()
            child.end(within=1.0)
        self._next = None

    def _write_roster(self) -> None:
        refused = {digest: reason for digest, (reason, _) in self._refused.items()}
        if self._live.refusal and not self._live.ready:
            refused[self._live.digest] = self._live.refusal
        warm = self._warm.version() if self._warm else None
        roster = Roster(live=self._live.version(), warm=warm, refused=refused)
        if roster != self._roster:
            self._roster = roster
            write_roster(self._folder, roster)

    def _served(self, digest: str, bundle: Path, workers: int) -> Served:
        return Served(digest, bundle, [self._worker(digest, bundle) for _ in range(workers)], time.monotonic())

    def _worker(self, digest: str, bundle: Path) -> Child:
        self._started += 1
        name = f"worker-{self._started}"
        socket = self._folder / f"{name}.sock"
        command = [sys.executable, "-m", "serving.model_worker", "--bundle", str(bundle), "--socket", str(socket)]
        return Child(f"model worker {self._started} ({digest[:12]})", command, socket, self._folder / f"{name}.log")

    def _gateway(self, number: int, gateways: int) -> Child:
        sign = self._folder / f"gateway-{number}"
        command = [sys.executable, "-m", "serving.gateway_worker", "--listening", str(self._listening)]
        command += ["--folder", str(self._folder), "--number", str(number), "--of", str(gateways)]
        return Child(f"gateway worker {number}", command, sign, self._folder / f"gateway-{number}.log")

    def _stop(self) -> None:
        """Gateways first, so that what they hold is still scored."""
        until = time.monotonic() + DRAIN_SECONDS
        workers = [child for served in (self._live, self._warm, self._next) if served for child in served.workers]
        for children in (self._gateways, [*workers, *(child for _, child in self._retired)]):
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


def _in_child() -> None:
    """Signals as usual: the supervisor itself waits for them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def main() -> int:
    """Run as `python -m serving.supervisor`."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listening", type=int, required=True)
    arguments.add_argument("--bundle", type=Path, required=True)
    arguments.add_argument("--pointer", type=Path)
    arguments.add_argument("--bundles", type=Path, required=True)
    arguments.add_argument("--gateways", type=int, required=True)
    given = arguments.parse_args()
    silence_telemetry()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    os.set_inheritable(given.listening, True)
    return Supervisor(
        listening=given.listening,
        bundle=given.bundle,
        pointer=given.pointer,
        bundles=given.bundles,
        gateways=given.gateways,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
