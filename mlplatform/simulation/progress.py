"""What a replay shows: a line for each day, and beneath it what is being done; or JSON lines for scripts."""

import logging
import sys
from datetime import date
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.simulation.replay import Replayed

loggers = [logging.getLogger(name) for name in ("mlplatform", "dagster")]
"""What each stage and sensor says of each day would bury the lines."""


class Progress:
    """The lines of one replay."""

    def __init__(self, console: Console, domain: Domain, model: ModelSpec, *, as_json: bool) -> None:
        self._console = console
        self._name = f"{domain.name}/{model.name}"
        self._as_json = as_json
        self._status = Status("", console=console) if console.is_terminal and not as_json else None
        self._levels = [logger.level for logger in loggers]
        self._days = 0
        self._done = 0

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        for logger in loggers:
            logger.setLevel(max(logger.level, logging.WARNING))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
        for logger, level in zip(loggers, self._levels, strict=True):
            logger.setLevel(level)

    def plan(self, first: date, last: date, days: list[date]) -> None:
        """Say which days there are to do."""
        self._days = len(days)
        if not days:
            self._say(f"every day from {first} to {last} has been replayed, or had landed before")
        elif days[0] > first:
            self._say(f"the days before {days[0]} have landed; going on from there, to {last}")
        else:
            self._say(f"{len(days)} days of {self._name}, {first} to {last}")

    def tell(self, what: str) -> None:
        """Say what is being done, where somebody is looking."""
        if self._status is not None:
            self._status.update(f"{what}  ({self._done} of {self._days} days)")

    def show(self, replayed: Replayed) -> None:
        """A day is over."""
        self._done += 1
        if self._as_json:
            sys.stdout.write(replayed.as_json() + "\n")
            sys.stdout.flush()
            return
        self._say(line(replayed), style="yellow" if replayed.findings else None)
        for finding in replayed.findings:
            self._say(f"    ! {finding}", style="yellow")
        for training in replayed.trainings:
            self._say(f"    trained {training}", style="cyan")
        if replayed.took_over:
            self._say(f"    {replayed.took_over} answers from now on", style="green")

    def interrupted(self) -> None:
        """Somebody has stopped it."""
        self._say(f"stopped after {self._done} of {self._days} days; the same command goes on from there")

    def _say(self, text: str, style: str | None = None) -> None:
        if not self._as_json:
            self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def line(replayed: Replayed) -> str:
    """A day in one line.

    Examples
    --------
    >>> line(Replayed(day="2024-01-21", asked=20, sources={"model": 19, "rules": 1}, p99_ms=4.2))
    '2024-01-21     20 asked  model 95.0 % rules 5.0 %  p99 4.2 ms'
    """
    answers = sum(replayed.sources.values())
    shares = " ".join(
        f"{source} {count / answers:.1%}".replace("%", " %") for source, count in replayed.sources.items()
    )
    parts = [f"{replayed.day} {replayed.asked:>6,} asked", shares or "no answers"]
    if replayed.p99_ms is not None:
        parts.append(f"p99 {replayed.p99_ms:g} ms")
    parts += [
        f"{name}{f' of {replayed.losses_of}' if name.startswith('true') else ''} {value:.4g}"
        for name, value in replayed.losses.items()
    ]
    if replayed.not_answered:
        parts.append(f"{replayed.not_answered:,} not answered")
    parts += [f"{fault} in {column}" if column else fault for fault, column in replayed.injected.items()]
    seconds = sum(replayed.seconds.values())
    return "  ".join([*parts, f"{seconds:.1f} s"] if seconds else parts)
