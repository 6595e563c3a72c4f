"""What a domain promises of its past: how long it is kept, and how sure it is that an old answer can be given again."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from mlplatform.domain.threshold import Threshold
from mlplatform.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What is removed once it has an age, and leaves a tombstone. None everywhere: nothing ever is.

    Never removed, whatever its age: what a live manifest, an answer within `predictions` or a legal hold refers to, and
    the current revision of a partition.
    """

    predictions: timedelta | None = None
    """Age from which a day of the prediction log is removed: the log window. Shorter than what a complaint takes to
    arrive, and nobody can look at the answer that was complained of."""

    superseded: timedelta | None = None
    """Age, since a newer one took its place, from which a revision of a stage table is removed."""

    models: timedelta | None = None
    """Age, since it last served or was made, from which a model's bundle and training set are removed."""

    def __post_init__(self) -> None:
        for name in ("predictions", "superseded", "models"):
            age = getattr(self, name)
            if age is not None and age < timedelta(days=1):
                raise DeclarationError(
                    f"retention: {name} is {age}. Declare a day or more, or None to keep it for ever"
                )


@dataclass(frozen=True, kw_only=True)
class Reproducibility:
    """How a domain keeps the reproducibility contract."""

    dirty_tree: Literal["refused", "stored"] = "refused"
    """What becomes of a model that was trained from a checkout with changes that no commit holds. `refused`: it is not
    promoted. `stored`: it may be, and the changes are kept in its bundle as a diff."""

    nightly_replays: int = 500
    """Answers that are replayed each night, over all ages and versions: seconds of work. Fewer would rarely meet what
    happened to few; a fault of one answer in a hundred is met 99 times in 100 by 500."""

    min_replayed: Threshold = Threshold(
        value=1.0, reason="an answer that cannot be given again has a cause, and each cause is worth a look"
    )
    """Share of those of each model, without what was removed by policy, that must be exact or within tolerance."""

    retention: Retention = Retention()
