"""Where the tables of a domain stand, what they hold, and when a day is over."""

from datetime import UTC, datetime

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.tables import Tables, available_at, day_range, partition_end, stages
from mlplatform.provenance.platform import Platform


def test_every_stage_has_its_tables(platform: Platform) -> None:
    """One table per source, derived table or view, under the stage's folder."""
    tables = Tables(platform, DOMAIN)
    assert {stage: sorted(tables.of(stage)) for stage in stages} == {
        "raw": ["orders"],
        "validated": ["orders"],
        "quarantine": ["orders"],
        "base": ["orders"],
        "derived": ["deliveries"],
        "feature_store": ["courier", "district"],
    }
    uris = [table.uri for stage in stages for table in tables.of(stage).values()]
    assert len(set(uris)) == 7
    assert uris[-1] == f"{platform.home}/tables/synthetic/feature_store/district"


def test_facts_are_of_a_derived_table_or_a_base_table(platform: Platform) -> None:
    """The name that a view or the requests give is looked for among the derived tables first."""
    tables = Tables(platform, DOMAIN)
    assert tables.facts("deliveries").uri == tables.derived("deliveries").uri
    assert tables.facts("orders").uri == tables.base("orders").uri


def test_published_features_have_key_values_and_clocks(platform: Platform) -> None:
    """The key has the type that it has in the facts."""
    view = DOMAIN.views[1]
    schema = Tables(platform, DOMAIN).features(view).schema
    assert schema.names() == [
        "district",
        "district_deliveries_3d",
        "district_mean_minutes_3d",
        "event_time",
        "available_at",
    ]
    assert schema["district"] == DOMAIN.derived[0].columns[2].dtype


def test_a_day_is_over_at_midnight_and_served_after_the_delay() -> None:
    """In UTC, over month and leap day."""
    assert partition_end("2024-02-29") == datetime(2024, 3, 1, tzinfo=UTC)
    assert available_at(DOMAIN, "2024-02-29") == datetime(2024, 3, 1, 1, tzinfo=UTC)
    assert day_range("2024-02-28", "2024-03-01") == ["2024-02-28", "2024-02-29", "2024-03-01"]
    assert day_range("2024-02-28", "2024-02-27") == []
