"""Online reads answer as the offline join does, from what a real pipeline has published."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domains.synthetic.ground_truth import couriers, districts
from mlplatform.features.historical import historical_features
from mlplatform.features.online.store import open_online_store
from mlplatform.features.view import view_features
from mlplatform_tests.fakes.synthetic_home import TrainedHome

INSTANT = pl.Datetime("us", "UTC")
MIDNIGHT = datetime(2024, 1, 25, tzinfo=UTC)


@settings(max_examples=20)
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from([*couriers, "c9", None]),
            st.sampled_from([*districts, "moon"]),
            # From the midnight on which the last partition ends, past its publication, to after its time to live.
            st.integers(0, 75 * 60).map(lambda minutes: MIDNIGHT + timedelta(minutes=minutes)),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_online_answers_are_the_offline_ones(
    trained: TrainedHome, asked: list[tuple[str | None, str, datetime]]
) -> None:
    """For any request after the last partition the store gives what the point-in-time join gives, to the bit."""
    schema = {"courier": pl.String(), "district": pl.String(), "at": INSTANT}
    requests = pl.DataFrame(asked, schema=schema, orient="row")
    offline = historical_features(trained.platform, trained.domain, trained.model, requests)
    store = open_online_store(trained.platform.online_store)
    looked_up = [
        store.lookup(view, requests, requests["at"]).values for view in view_features(trained.domain, trained.model)
    ]
    assert pl.concat(looked_up, how="horizontal").equals(offline)
