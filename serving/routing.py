"""The routing: which arm answers a request, and how probable that was.

A plan is looked at once; where it sends everybody to the champion, as most plans do, a request costs a comparison, and
where it does not, one hash. Routes are few and shared: what is logged of a thousand requests are a thousand references
to one of them.

It refuses to know which versions are open: an arm that cannot answer is its caller's matter, who takes the champion.
"""

import random
from collections.abc import Callable
from typing import Literal, NamedTuple

from mlplatform.rollout.plan import Arm, Plan


class Route(NamedTuple):
    """How a request came to who answers it."""

    arm: Literal["champion", "challenger", "shadow"]
    plan: str
    """Version of the plan; empty where there is none."""

    propensity: float
    """How probable it was that this arm answers; 0: by the plan it would not have, and only stood in."""


UNPLANNED = Route("champion", "", 1.0)
"""Where there is no plan, the champion answers."""


class Routing:
    """What one plan makes of keys.

    Parameters
    ----------
    plan : None: there is none
    standing_in : whether another version answers in place of the plan's champion: then it answers everybody
    chance : a number from 0 up to 1, anew at each call; asked only under exploration

    Examples
    --------
    >>> plan = Plan(model="d/m", champion="a", challenger="b", mode="canary", weight=10_000, number=7)
    >>> Routing(plan).of("user 1").arm, Routing(plan).of(None).arm
    ('challenger', 'champion')
    """

    def __init__(
        self, plan: Plan | None, *, standing_in: bool = False, chance: Callable[[], float] = random.random
    ) -> None:
        self.plan = plan
        self.standing_in = standing_in
        self.version = plan.version if plan is not None else ""
        self.champion = Route("champion", self.version, 1.0)
        """Of who goes there whatever the plan says of the key."""

        self.instead = Route("champion", self.version, 0.0)
        """Of who goes there though the plan says otherwise: evidence of how keys fall leaves it out."""

        self.only: Route | None = self.instead if standing_in else self.champion
        """The route of every request; None: it depends on the key."""

        self.shadowed = plan is not None and plan.mode != "full" and not standing_in
        """Whether each arm scores what the other answers."""

        if plan is None or standing_in or plan.mode in ("full", "shadow") or not plan.share:
            return
        self.only = None
        self._arm = plan.arm
        self._chance = chance
        self._exploration, self._share = plan.exploration, plan.share
        shares: dict[Arm, float] = {"challenger": plan.share, "champion": 1.0 - plan.share}
        self._routes = {
            (arm, own): Route(arm, self.version, (1.0 - plan.exploration) * own + plan.exploration * share)
            for arm, share in shares.items()
            for own in (True, False)
        }

    def of(self, key: str | None) -> Route:
        """The route of a request.

        Parameters
        ----------
        key : what the plan draws by; None: the request has none, and the champion answers it
        """
        if self.only is not None or key is None:
            return self.only or self.champion
        own = arm = self._arm(key)
        if self._exploration and self._chance() < self._exploration:
            arm = "challenger" if self._chance() < self._share else "champion"
        return self._routes[arm, arm == own]
