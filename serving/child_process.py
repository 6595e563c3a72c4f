"""A process that is kept alive: started, listened to for signs of life, killed when it hangs, started again.

Time comes in as an argument, so a supervisor that was itself paused does not take its children for hung.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SILENT_SECONDS = 4.0
"""A process that shows no sign of life for so long hangs and is killed: it is up again within 10 s."""

LONGEST_LOOK = 1.0
"""Seconds between two looks that count as silence at most: a longer gap was our own."""

READY_SECONDS = 90.0
"""From a process's start to its first sign of life, at most: imports and golden rows, on a busy machine."""

FIRST_PAUSE, LONGEST_PAUSE, REFUSED_PAUSE = 0.1, 5.0, 30.0
"""Seconds before a process that ended is started again, doubled each time; longest for one that refuses its bundle."""

STEADY_SECONDS = 60.0
"""A process that has lived so long is started at once when it ends."""

REFUSED = 3
"""Exit code of a model worker that must not serve its bundle."""

BEHIND = 10
"""How nice a process is that others go before: under full load it gets about a tenth of what they get."""


@dataclass
class Child:
    """A process that is kept alive."""

    name: str
    command: Sequence[str]
    sign: Path
    """File that the process makes when it is ready, and touches every second while it is well."""

    log: Path
    heard: bool = False
    """Whether what it says goes into the service's log; else its last words are kept, to be told at its end."""

    behind: bool = False
    """Whether others go before it, where there is not enough for all."""

    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    not_before: float = 0.0
    pause: float = FIRST_PAUSE
    refused: str = ""
    """Why a model worker does not serve its bundle; empty again once it does."""

    shown: int = 0
    """When the newest sign of life came, by the clock of files; only that it changes is looked at."""

    silent: float = 0.0
    looked: float = 0.0
    last_words: str = ""
    """The last line that it wrote before it ended."""

    @property
    def ready(self) -> bool:
        """Whether it has shown that it is well, and was not seen to end since."""
        return self.sign.exists()

    def keep(self, now: float, environment: dict[str, str], descriptors: tuple[int, ...]) -> None:
        """Start the process if it is not there, kill it if it hangs."""
        if self.ready:
            self.refused = ""
        if self.process is None:
            if now >= self.not_before:
                self._start(now, environment, descriptors)
        elif (code := self.process.poll()) is not None:
            self._ended(now, code)
        elif self._silent_for(now) > (SILENT_SECONDS if self.ready else READY_SECONDS):
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
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stderr=None if self.heard else told,
                pass_fds=descriptors,
                preexec_fn=_in_child_behind if self.behind else _in_child,
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


def _in_child() -> None:
    """Signals as usual: the supervisor itself waits for them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _in_child_behind() -> None:
    _in_child()
    os.nice(BEHIND)
