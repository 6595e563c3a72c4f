"""A check of the doctor: what it looks at, what it says, and how long it may take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Literal

from mlplatform.errors import MlplatformError

Verdict = Literal["ok", "warning", "broken"]

seconds_for_a_look = 10.0
"""A part that answers at all answers in a fraction of it; a firewall that swallows packets would hold a look for
minutes. All parts are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a look has found."""

    verdict: Verdict
    told: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing to look at."""

    part: str
    looked_at: str
    look: Callable[[], Said]
    mend: str
    """What to do when the look itself fails."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check that was made."""

    part: str
    verdict: Verdict
    looked_at: str
    told: str
    mend: str
    """Empty where all is well."""


def ok(told: str) -> Said:
    """All is well."""
    return Said(verdict="ok", told=told)


def warning(told: str, mend: str) -> Said:
    """It works, but not as somebody may expect."""
    return Said(verdict="warning", told=told, mend=mend)


def broken(told: str, mend: str) -> Said:
    """Something will fail."""
    return Said(verdict="broken", told=told, mend=mend)


def made(checks: Sequence[Check], *, seconds: float = seconds_for_a_look) -> list[Finding]:
    """Make checks at the same time, each for no longer than `seconds`; nothing raises."""
    answers: list[Queue[Said]] = [Queue() for _ in checks]
    for check, answer in zip(checks, answers, strict=True):
        # A thread that never comes back must not keep the process alive.
        Thread(target=lambda check=check, answer=answer: answer.put(_look(check)), daemon=True).start()
    findings = []
    for check, answer in zip(checks, answers, strict=True):
        try:
            said = answer.get(timeout=seconds)
        except Empty:
            said = broken(f"no answer within {seconds:.0f} s", check.mend)
        findings.append(
            Finding(part=check.part, verdict=said.verdict, looked_at=check.looked_at, told=said.told, mend=said.mend)
        )
    return findings


def _look(check: Check) -> Said:
    try:
        return check.look()
    except MlplatformError as error:
        return broken(str(error), check.mend)
    except Exception as error:  # noqa: BLE001 - whatever a part raises is what was to be found out
        told = " ".join(str(error).split()) or "no message"
        return broken(f"{type(error).__name__}: {told[:500]}", check.mend)
