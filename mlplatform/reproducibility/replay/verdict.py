"""Verdicts: what became of an answer that was given again, and what is to blame where it is another.

A replay goes the way of the answer, from its record to what was told, and the first thing on it that differs is the
cause. What differs after that follows from it, and would only hide it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Outcome = Literal["exact", "within_tolerance", "diverged", "impossible"]
"""`exact`: to the bit. `impossible`: something without which the answer cannot be given again is gone, or is not what
was written."""

Cause = Literal["record", "removed", "bundle", "routing", "data", "code", "environment", "device", "answer"]
"""In the order in which they are looked for, `environment` and `device` apart: those are named where the bits differ,
and nothing before them does.

`record`: the row of the log is not what was written, or lacks what a replay needs. `removed`: by policy, with a
tombstone. `bundle`: gone, or a file of it is another. `routing`: the plan sends this request elsewhere. `data`: other
values of views than were known then, or their files are not what was written. `code`: the bundle's feature code makes
other inputs of the same values. `answer`: the same score was told as something else.
"""

meaning: Mapping[Cause, str] = {
    "record": "the row of the log is not what was written, or lacks what a replay needs",
    "removed": "removed by policy",
    "bundle": "the bundle is gone, or is not what was written",
    "routing": "the plan sends this request elsewhere",
    "data": "other values than were known then, or files that are not what was written",
    "code": "the bundle's feature code makes other inputs of the same values",
    "environment": "other versions of what computes",
    "device": "another class of device",
    "answer": "the same score was told as something else",
}
"""What each cause means, for whoever reads it on a page."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a replay of one answer came to."""

    outcome: Outcome
    cause: Cause | None = None
    """The first on the way from record to answer; None where it is exact."""

    reason: str = ""
    """One sentence that names the thing."""

    notes: tuple[str, ...] = ()
    """What is worth knowing and changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One row of the log, given again."""

    request_id: str
    arm: str
    model: str
    """Its name in its domain."""

    manifest: str
    model_version: str
    source: str
    """The tier that answered."""

    received: datetime
    verdict: Verdict
    difference: float
    """The largest absolute one of score or probability; 0 where it is the same to the bit, or nothing was computed."""
