"""The simulated clock: what time it is for the whole platform while recorded days are replayed."""

from datetime import datetime


class SimulatedClock:
    """Stands still until it is moved, and moves forward only."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def __call__(self) -> datetime:
        """What time it is, UTC."""
        return self._now

    def move_to(self, instant: datetime) -> None:
        """It becomes so late; to an instant that has been it stays where it is."""
        self._now = max(self._now, instant)
