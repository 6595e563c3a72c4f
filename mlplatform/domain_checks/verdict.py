"""What a check of a domain says: passed, failed with the offending row or column, or skipped with the reason."""

from dataclasses import dataclass
from typing import Literal

from mlplatform.errors import DomainCodeRaised

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong."""

    what: str
    """The part at fault, such as `view courier` or `request column minutes`."""

    where: str
    """The column, row or day at which it shows."""

    told: str
    """What is wrong there, and what to do next."""


def fault_of(error: BaseException) -> Fault:
    """What a function of the domain has raised, or a refusal of ours, as a fault."""
    if isinstance(error, DomainCodeRaised):
        cause = error.__cause__ or error
        told = f"raised {type(cause).__name__}: {_line(cause)}. Mend the function for such rows"
        return Fault(what=error.what, where=error.day, told=told)
    return Fault(what="declaration or sample", where="see the reason", told=f"{type(error).__name__}: {_line(error)}")


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or "no message")[:400].rstrip(".")


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a check has seen when nothing kept it from judging."""

    at: str
    """What was looked at, for the reader who wants to know how much a `passed` is worth."""

    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict of one check."""

    check: str
    meaning: str
    verdict: Verdict
    told: str
    """What was looked at (passed), how much is wrong (failed), why nothing can be said (skipped)."""

    faults: tuple[Fault, ...] = ()
    seconds: float = 0.0
