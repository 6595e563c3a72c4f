"""Orders of a shop, carried by couriers: a small made-up domain whose truth is known, for tests and simulations."""

from datetime import date

from mlplatform.domain.domain import Domain
from mlplatform.domain.reproducibility import Reproducibility

from .ground_truth import first_day, last_day, sample
from .models import late_order, minutes_to_door, requests, speed
from .sources import deliveries, orders
from .views import fitted, on_demand, views

DOMAIN = Domain(
    name="synthetic",
    meaning="Orders of a shop that does not exist: will the courier be late, and how long does it take?",
    owners=("team:platform",),
    start=first_day,
    end=date(2024, 12, 31),
    sources=(orders,),
    derived=(deliveries,),
    views=views,
    on_demand=on_demand,
    fitted=fitted,
    requests=requests,
    models=(late_order, minutes_to_door, speed),
    history_until=last_day,
    sample=sample,
    # An edited checkout is what one tries things in: its models may serve, and the edits are kept in their bundles.
    reproducibility=Reproducibility(dirty_tree="stored"),
)
