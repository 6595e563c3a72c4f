"""`Finding`: one thing that a monitor has found wrong, in figures and in words that say what to do about it.

Monitors give findings and send nothing; alerts are made of them, and policies weigh them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Layer = Literal["data_quality", "model_behaviour", "outcomes"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong, on one day."""

    layer: Layer
    rule: str
    """What kind of thing: `drift`, `null_rate`, `fallback_share`, `log_loss` and so on. With `subject` it names the
    alert: the same rule on the same subject the day after is the same alert, going on."""

    subject: str
    """What it is about: `domain/model`, or `domain/table` for data."""

    day: str
    """ISO day of the partition that was judged."""

    summary: str
    """One sentence: what, by how much, against which bound, and what to look at."""

    harmful: bool = True
    """Whether it is likely to cost good predictions. What is merely unusual is shown and wakes nobody."""

    manifest: str = ""
    """Digest of the model that served; empty where it is about data alone."""

    figures: Mapping[str, float] = field(default_factory=dict)
    """By name, `value` and `bound` among them."""

    features: tuple[str, ...] = ()
    """The features concerned, the worst first."""
