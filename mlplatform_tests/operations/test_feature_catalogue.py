"""The feature catalogue and the answer of as-of, as people and scripts read them."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.as_of import as_of
from mlplatform.features.version import view_version
from mlplatform.operations import as_of as as_of_shown
from mlplatform.operations.feature_catalogue import as_json, describe, show, show_list
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.streamed_shop import SHOP
from mlplatform_tests.fakes.synthetic_home import TrainedHome


def shown(show: Callable[[Console], None]) -> str:
    """What a person reads, on one line."""
    told = io.StringIO()
    show(Console(file=told, width=250))
    return " ".join(told.getvalue().split())


def test_a_view_is_described_in_full(trained: TrainedHome) -> None:
    """Freshness, coverage of the last day's requests, what is online, and who reads it."""
    courier, district = found = describe(trained.platform, DOMAIN)
    assert (courier.view, courier.version) == ("synthetic/courier", view_version(DOMAIN, DOMAIN.views[0]))
    assert (courier.newest_partition, courier.partitions) == ("2024-01-24", 24)
    assert courier.newest_available_at == datetime(2024, 1, 25, 1, tzinfo=UTC)
    assert courier.coverage_of == "200 requests of 2024-01-24"
    assert {feature.coverage for feature in courier.features} == {1.0}
    assert courier.online is not None
    assert (courier.online.keys, courier.online_error) == (8, "")
    assert "synthetic/late_order" in courier.models
    assert district.entity == ("district",)
    assert json.loads(as_json(found))[0]["features"][0]["unit"] == DOMAIN.views[0].features[0].unit
    listed, told = shown(lambda console: show_list(found, console)), shown(lambda console: show(found, console))
    for word in ("courier", "2024-01-24", "100.0%", "8 keys"):
        assert word in listed
        assert word in told
    assert "synthetic/late_order" in told
    assert "daily, 1 h after the day is over (UTC)" in told


def test_an_empty_home_has_a_catalogue(platform: Platform) -> None:
    """Nothing is computed, published or covered, and that is said."""
    courier = describe(platform, DOMAIN, "courier")[0]
    assert (courier.newest_partition, courier.online, courier.coverage_of) == (None, None, "")
    assert "nothing to tell it from" in shown(lambda console: show([courier], console))


def test_a_streamed_view_is_not_called_daily(platform: Platform) -> None:
    """It is published as its facts arrive, and at the end of the day."""
    schedule = describe(platform, SHOP, "courier")[0].schedule
    assert schedule == "as facts arrive, while `mlplatform stream` runs; and 1 h after the day is over (UTC)"


def test_an_unknown_view_is_refused(platform: Platform) -> None:
    """It says which there are."""
    with pytest.raises(DeclarationError, match=r"'curier'. Is `courier` meant\? There is courier, district"):
        describe(platform, DOMAIN, "curier")


def test_the_answer_of_as_of_is_shown(trained: TrainedHome) -> None:
    """Value, status, clocks, revision and landed files; in JSON all of it, and whether it differs."""
    entity = {"courier": "c1", "district": "hill"}
    at = datetime(2024, 1, 20, 14, 47, tzinfo=UTC)
    found = as_of(trained.platform, DOMAIN, entity, at, model=DOMAIN.model("late_order"))
    told = shown(lambda console: as_of_shown.show(found, console))
    for words in (
        "synthetic/late_order of courier=c1, district=hill at 2024-01-20 14:47:00Z",
        "synthetic/feature_store/courier/2024-01-19@1, known 2024-01-20 01:00:00Z, run test",
        "raw/orders/2024-01-19@1 from",
        "nothing else is believed now",
    ):
        assert words in told
    written = json.loads(as_of_shown.as_json(found))
    assert written["values"][0]["then"]["origin"]["revision"] == 1
    assert written["values"][0]["differs"] is False


def test_the_commands_print_json(trained: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """`features list`, `describe` and `as-of` give scripts what the functions give."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(trained.platform.home))

    def printed(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["features", *arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    assert [each["view"] for each in printed("list", "synthetic")] == ["synthetic/courier", "synthetic/district"]
    assert [each["view"] for each in printed("describe", "synthetic", "district")] == ["synthetic/district"]
    asked = ("as-of", "synthetic", "--entity", "courier=c1,district=hill", "--at", "2024-01-20T14:47:00+02:00")
    told = printed(*asked, "--known-at", "2024-01-21T00:00:00Z", "--model", "synthetic/late_order")
    assert (told["at"], told["known_at"]) == ("2024-01-20T12:47:00Z", "2024-01-21T00:00:00Z")
    assert told["model"] == "synthetic/late_order"
    with pytest.raises(DataError, match="says no zone"):
        printed(*asked[:-1], "2024-01-20T14:47:00")
