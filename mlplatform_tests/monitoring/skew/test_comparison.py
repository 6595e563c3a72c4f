"""Skew: an honest day has none; whatever is served otherwise than models are trained on is found and named."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import AsFactsArrive
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows as orders_of
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import Tables, stages
from mlplatform.monitoring.served import asked, drawn, served_on
from mlplatform.monitoring.skew.checks import skew_result
from mlplatform.monitoring.skew.comparison import DaySkew, FeatureSkew, keep, skew_of_day
from mlplatform.monitoring.skew.expected import Expected
from mlplatform.monitoring.skew.tables import skew_rows, skew_table
from mlplatform.registry.bundle import Bundle, write_bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import Clock, TrainedHome, land_orders, run_stage

DAY, BEFORE, TWO_BEFORE = "2024-01-20", "2024-01-19", "2024-01-18"
ORDER_FEATURES = ("order_distance", "order_items", "order_hour")


def moment(hour: int, minute: int = 0, day: str = DAY) -> datetime:
    """An instant of a day, UTC."""
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(hours=hour, minutes=minute)


class Shop:
    """A trained home on the night of the day that is looked at, with its model."""

    def __init__(self, home: TrainedHome, folder: Path) -> None:
        self.platform, self.folder = home.platform, folder
        self.bundle = bundle_of(home.platform, home.entry.to_manifest)
        self.at(0, 10)

    def at(self, hour: int, minute: int = 0) -> None:
        """It is so late on the day."""
        clock = self.platform.clock
        assert isinstance(clock, Clock)
        clock.now = moment(hour, minute)

    def publish(self, as_of: str = BEFORE) -> None:
        """Bring the online store up to a day."""
        publish_values(self.platform, DOMAIN, as_of=as_of)

    def serve(self, gateway: Gateway | None = None, *, hours: range = range(24)) -> None:
        """Answer the requests of the day."""
        gateway = gateway or Gateway(self.platform, self.bundle)
        gateway.serve(asked_on(self.platform, DAY, hours=hours), self.folder)

    def correct(self, day: str, *, seed: int = 9) -> None:
        """Other orders land for a day, and are computed."""
        land_orders(self.platform, [day], {day: orders_of(date.fromisoformat(day), rows_per_day=200, seed=seed)})
        for stage in stages:
            run_stage(self.platform, stage, [day])

    def skew(self, domain: Domain = DOMAIN) -> DaySkew:
        """What is found of the day."""
        return skew_of_day(self.platform, domain, DAY)


@pytest.fixture
def shop(own_trained: TrainedHome, tmp_path: Path) -> Shop:
    """One of its own for each test."""
    return Shop(own_trained, tmp_path / "metrics")


def wrong(found: DaySkew) -> dict[str, FeatureSkew]:
    """Features with skew, by name."""
    return {each.feature: each for each in found.features if each.wrong}


def test_an_honest_day_has_no_skew(shop: Shop) -> None:
    """Every feature of every answer, the night's publication in the middle, is the offline one to the bit."""
    shop.publish()
    shop.serve()
    found = shop.skew()
    assert found.faults == [] and found.rows.is_empty()
    (told,) = found.manifests
    assert told.answers == told.computed == told.looked_at == asked_on(shop.platform, DAY).height > 100
    assert tuple(each.feature for each in told.features) == shop.bundle.manifest.features
    assert {each.compared for each in told.features} == {told.answers}
    assert set(told.statuses) == {"synthetic/courier", "synthetic/district"}
    assert told.statuses["synthetic/courier"]["present"] > 100


def test_nothing_served_is_no_skew(shop: Shop) -> None:
    """No log at all, and a day without rows."""
    assert (shop.skew().answers, shop.skew().faults) == (0, [])
    shop.publish()
    shop.serve()
    empty = skew_of_day(shop.platform, DOMAIN, BEFORE)
    assert (empty.answers, empty.faults) == (0, [])


def test_a_late_publication_is_found(shop: Shop) -> None:
    """From the hour on at which the schedule says that the day before is served; until then all is right."""
    shop.publish(as_of=TWO_BEFORE)
    shop.serve()
    found = shop.skew()
    assert {"courier_deliveries_3d", "courier_mean_minutes_3d", "district_deliveries_3d"} <= set(wrong(found))
    assert not set(wrong(found)) & {*ORDER_FEATURES, "courier_code"}
    assert (found.rows["at"] >= moment(1)).all()
    assert "not published in time" in wrong(found)["courier_mean_minutes_3d"].cause
    assert "was served otherwise in" in found.faults[0] and "was not published in time" in found.faults[0]


def test_a_stale_store_is_found(shop: Shop) -> None:
    """What was published ten days ago has expired: values are missing that a current store would have had."""
    shop.publish(as_of="2024-01-10")
    shop.serve()
    found = shop.skew()
    courier = wrong(found)["courier_deliveries_3d"]
    assert courier.missing > 100 and courier.mismatched == 0
    (told,) = found.manifests
    assert told.statuses["synthetic/courier"]["expired"] > 100


def test_a_correction_that_is_not_published_is_found(shop: Shop) -> None:
    """Until it is known there is no skew, and for the minutes that a publication takes none either; then there is."""
    shop.publish()
    shop.serve(hours=range(12))
    shop.at(12)
    shop.correct(BEFORE)
    shop.serve(hours=range(12, 24))
    found = shop.skew()
    assert (found.rows["at"] >= moment(12, 10)).all()
    assert "served older values" in wrong(found)["courier_mean_minutes_3d"].cause
    assert set(found.rows["offline_revision"]) == {2}


def test_a_correction_that_is_published_at_once_is_no_skew(shop: Shop) -> None:
    """What was served while it was on its way is counted, not blamed."""
    shop.publish()
    shop.serve(hours=range(12))
    last = asked_on(shop.platform, DAY, hours=range(12))["at"].max()
    assert isinstance(last, datetime)
    shop.at(last.hour, last.minute)
    shop.correct(BEFORE)
    shop.publish()
    shop.serve(hours=range(12, 24))
    found = shop.skew()
    assert found.faults == []
    assert max(each.publishing for each in found.features) > 0


def at_once(shop: Shop, *moments: datetime) -> None:
    """The first requests of the day, all of them asked at these moments instead."""
    requests = asked_on(shop.platform, DAY).head(30)
    times = pl.Series("at", [moments[row % len(moments)] for row in range(30)], dtype=requests.schema["at"])
    Gateway(shop.platform, shop.bundle).serve(requests.with_columns(times), shop.folder)


@pytest.mark.parametrize("too_late", [False, True])
def test_a_day_that_is_committed_just_in_time_has_its_minutes_too(shop: Shop, *, too_late: bool) -> None:
    """Ten seconds before it may be served: it is in the store some seconds after, or ten minutes after the commit."""
    shop.publish(as_of=TWO_BEFORE)
    clock = shop.platform.clock
    assert isinstance(clock, Clock)
    clock.now = moment(0, 59) + timedelta(seconds=50)
    shop.correct(BEFORE)
    at_once(shop, moment(1, 5), moment(1, 9), *([moment(1, 10)] if too_late else []))
    found = shop.skew()
    assert max(each.publishing for each in found.features) > 0
    assert set(found.rows["at"]) == ({moment(1, 10)} if too_late else set())


def test_between_two_corrections_each_state_may_have_been_served(shop: Shop) -> None:
    """The one before both, and the one between them; not one that is older than a publication takes."""
    shop.publish()
    at_once(shop, moment(12, 6))
    shop.at(12)
    shop.correct(BEFORE)
    shop.publish()
    at_once(shop, moment(12, 7))
    shop.at(12, 5)
    shop.correct(BEFORE, seed=11)
    at_once(shop, moment(12, 8))
    found = shop.skew()
    assert found.faults == []
    assert max(each.publishing for each in found.features) > 60
    at_once(shop, moment(12, 15))
    assert set(shop.skew().rows["at"]) == {moment(12, 15)}


def odd_couriers(requests: pl.DataFrame) -> pl.DataFrame:
    """The order's features as somebody has changed them: it stops at some orders."""
    odd = requests.filter(pl.col("order_id") % 50 == 7)
    if odd.height:
        raise ZeroDivisionError(f"order {odd['order_id'][0]}")
    return DOMAIN.on_demand[0].function(requests)


def test_requests_on_which_the_feature_code_raises_cost_no_others(shop: Shop) -> None:
    """They are counted, with what was raised; the other requests are compared, and the check warns."""
    shop.publish()
    shop.serve()
    raising = asked_on(shop.platform, DAY).filter(pl.col("order_id") % 50 == 7).height
    changed = replace(DOMAIN, on_demand=(replace(DOMAIN.on_demand[0], function=odd_couriers),))
    found = shop.skew(changed)
    (told,) = found.manifests
    assert raising > 0 and (told.raised, told.looked_at) == (raising, told.computed - raising)
    assert {each.compared for each in told.features} == {told.looked_at}
    assert "raised ZeroDivisionError" in told.not_compared and "order " in told.not_compared
    assert found.faults == []
    result = skew_result(found)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"{raising} answers of late_order" in str(result.description)
    keep(shop.platform, DOMAIN, found, run_id="r1")


def test_code_that_raises_on_each_request_is_told(shop: Shop) -> None:
    """None of them is compared, and what the night kept of the day says so."""
    shop.publish()
    shop.serve(hours=range(3))
    always = replace(DOMAIN.on_demand[0], function=lambda requests: pl.DataFrame({"none": [requests.height]}))
    (told,) = shop.skew(replace(DOMAIN, on_demand=(always,))).manifests
    assert (told.looked_at, told.raised) == (0, told.computed)
    assert "does not give what it declares" in told.not_compared


def streamed_by_the_hour(shop: Shop) -> Domain:
    """The courier's view as one that is published as facts arrive, with the history of the day that is looked at."""
    live = replace(DOMAIN.views[0], name="courier_live", schedule=AsFactsArrive(every=timedelta(hours=1)))
    views = (live, *DOMAIN.views[1:])
    models = tuple(replace(each, views=tuple(view.name for view in views)) for each in DOMAIN.models)
    domain = replace(DOMAIN, views=views, models=models, history_until=date.fromisoformat(DAY))
    run_stage(shop.platform, "feature_store", [TWO_BEFORE, BEFORE, DAY], domain)
    return domain


def test_a_streamed_value_has_a_second_to_become_visible(shop: Shop) -> None:
    """What came within the second before the request may not be in the store yet, what came earlier must be.

    The store holds what the night has published, and nothing of the day.
    """
    domain = streamed_by_the_hour(shop)
    shop.publish()
    facts = Tables(shop.platform, domain).features(domain.views[0]).read([DAY])
    firsts = facts.sort("available_at").group_by("courier", maintain_order=True).first()
    first = firsts.filter(pl.col("available_at") > moment(2)).row(0, named=True)
    request = asked_on(shop.platform, DAY).head(1).with_columns(courier=pl.lit(first["courier"]))

    def served(late_by: timedelta) -> DaySkew:
        at = pl.lit(first["available_at"] + late_by).cast(request.schema["at"])
        Gateway(shop.platform, shop.bundle).serve(request.with_columns(at=at), shop.folder)
        return skew_of_day(shop.platform, domain, DAY)

    found = served(timedelta(milliseconds=900))
    assert found.faults == [] and found.answers == 1
    assert max(each.publishing for each in found.features) == 1
    found = served(timedelta(milliseconds=1100))
    assert {each.wrong for each in wrong(found).values()} == {1} and "courier_deliveries_3d" in wrong(found)


def by_the_local_hour(requests: pl.DataFrame) -> pl.DataFrame:
    """The order's features as somebody has changed them: the hour in New York."""
    hour = requests["ordered_at"].dt.convert_time_zone("America/New_York").dt.hour().cast(pl.Int32)
    return DOMAIN.on_demand[0].function(requests).with_columns(hour.alias("order_hour"))


def test_a_feature_function_changed_on_one_side_is_found(shop: Shop) -> None:
    """The domain's code has moved on, the model is served with the code of its bundle; nothing else is blamed."""
    shop.publish()
    shop.serve()
    changed = replace(DOMAIN, on_demand=(replace(DOMAIN.on_demand[0], function=by_the_local_hour),))
    found = shop.skew(changed)
    (hour,) = wrong(found).values()
    assert (hour.feature, hour.mismatched, hour.share) == ("order_hour", hour.compared, 1.0)
    assert hour.largest in (5.0, 19.0)
    assert "another than the one in the model's bundle" in hour.cause
    assert hour.example in set(found.rows["request_id"])


def generous(facts: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The courier's view as somebody has changed it: a minute is taken off."""
    off = pl.col("courier_mean_minutes_3d") - 1
    return DOMAIN.views[0].function(facts, at).with_columns(off.alias("courier_mean_minutes_3d"))


def test_a_view_changed_on_one_side_is_found(shop: Shop) -> None:
    """Its table holds what the new code gives, the store goes on serving what the old one gave."""
    shop.publish()
    changed = replace(DOMAIN, views=(replace(DOMAIN.views[0], function=generous), *DOMAIN.views[1:]))
    run_stage(shop.platform, "feature_store", [TWO_BEFORE, BEFORE], changed)
    shop.serve(hours=range(1, 24))
    found = shop.skew(changed)
    (minutes,) = wrong(found).values()
    assert (minutes.feature, minutes.largest) == ("courier_mean_minutes_3d", 1.0)
    assert "the model is pinned to synthetic/courier@" in minutes.cause


@pytest.mark.parametrize("hours", [-5, 1])
def test_a_gateway_in_another_time_zone_is_found(shop: Shop, hours: int) -> None:
    """Its answers are of another instant than that at which the requests came; where that matters, values differ."""
    shop.publish()
    shop.serve(Gateway(shop.platform, shop.bundle, wrong_by=timedelta(hours=hours)))
    found = shop.skew()
    (told,) = found.manifests
    assert told.misdated == told.looked_at
    assert "look at the clock and the time zone" in found.faults[-1]
    assert "courier_mean_minutes_3d" in wrong(found)
    inside = (moment(1), moment(6)) if hours < 0 else (moment(0), moment(1))
    assert found.rows["received"].is_between(*inside, closed="left").all()


def test_a_request_may_bring_its_own_time(shop: Shop) -> None:
    """Its answer is logged on its own day, whenever it was given, and compared as of its own time."""
    shop.publish()
    gateway = Gateway(shop.platform, shop.bundle, request_time=True)
    gateway.serve(asked_on(shop.platform, DAY), shop.folder, received=moment(9, day="2024-02-03"))
    found = shop.skew()
    assert found.answers > 100 and found.faults == []
    assert skew_of_day(shop.platform, DOMAIN, "2024-02-03").answers == 0
    (told,) = found.manifests
    assert told.misdated == 0


def test_a_request_whose_own_time_was_misread_is_found() -> None:
    """It said 14:47 in New York and was answered as of 14:47 UTC."""
    body = '{"order_id": 1, "courier": "c3", "district": "hill", "distance_km": 4.2, "items": 2, %s}'
    ordered = '"ordered_at": "2024-01-20T12:30:00Z"'
    says = [
        f'{ordered}, "at": "2024-01-20T14:47:00-05:00"',
        f'{ordered}, "at": "2024-01-20T14:47:00Z"',
        ordered,
        '"ordered_at": null',
    ]
    rows = pl.DataFrame({"request": [body % each for each in says]}).with_columns(
        at=pl.lit(moment(14, 47)), received=pl.lit(moment(14, 56))
    )
    read = asked(rows, DOMAIN.requests.columns)
    assert (read.kept, read.misdated, list(read.refused)) == ([0, 1, 2], [0], [3])
    assert read.requests["at"].to_list() == [moment(19, 47), moment(14, 47), moment(14, 47)]


def test_a_store_that_is_away_is_told_apart(shop: Shop) -> None:
    """What was knowingly served without is no skew, and features made of it are compared as they were made."""
    shop.serve(Gateway(shop.platform, shop.bundle, online=str(shop.folder / "nowhere")))
    found = shop.skew()
    assert found.faults == []
    features = {each.feature: each for each in found.features}
    answers = found.answers
    assert (features["courier_deliveries_3d"].unavailable, features["courier_deliveries_3d"].compared) == (answers, 0)
    assert (features["courier_code"].unavailable, features["courier_code"].compared) == (0, answers)
    assert found.manifests[0].statuses["synthetic/courier"] == {"unavailable": answers}


def by_courier(requests: pl.DataFrame) -> pl.DataFrame:
    """The order's features with one that is made of a view's value."""
    minutes = requests["courier_mean_minutes_3d"].fill_null(-1).alias("order_distance")
    return DOMAIN.on_demand[0].function(requests).with_columns(minutes)


def test_what_is_made_of_a_view_that_was_away_is_made_without_it(shop: Shop) -> None:
    """As serving made it, for those rows alone."""
    changed = replace(DOMAIN, on_demand=(replace(DOMAIN.on_demand[0], function=by_courier),))
    should = Expected(shop.platform, changed, "late_order", shop.bundle.digest)
    requests = asked_on(shop.platform, DAY)
    gone = pl.Series([row % 2 == 0 for row in range(requests.height)])
    made = should.inputs_of(requests, {"synthetic/courier": gone})[:, should.names.index("order_distance")]
    assert (made[::2] == -1).all()
    assert (made[1::2] > 0).any()


def other_bundle(shop: Shop) -> Bundle:
    """The same model with the couriers counted the other way round."""
    first = shop.bundle
    scores = pl.read_ipc(first.folder / "golden_scores.arrow")["score_0"].to_numpy()
    golden = pl.read_ipc(first.folder / "golden_rows.arrow"), scores
    return write_bundle(
        shop.platform.bundles,
        domain=DOMAIN,
        model=first.model,
        booster=first.booster,
        calibration=first.calibration,
        simple=first.simple,
        fitted={"courier_codes": list(reversed(first.fitted["courier_codes"]))},
        view_versions=first.manifest.views,
        record=first.manifest.record,
        model_version="other",
        rollback_target=first.digest,
        golden=golden,
    )


def test_each_manifest_is_compared_with_its_own_fitted_values(shop: Shop) -> None:
    """Two on one day: no skew; with the fitted values of the other one every courier would have another number."""
    shop.publish()
    second = other_bundle(shop)
    shop.serve(hours=range(12))
    shop.serve(Gateway(shop.platform, second), hours=range(12, 24))
    found = shop.skew()
    assert found.faults == []
    assert {each.manifest for each in found.manifests} == {shop.bundle.digest, second.digest}


def test_answers_whose_bundle_is_gone_are_counted(shop: Shop) -> None:
    """They cannot be compared, and that is said; the others are."""
    shop.publish()
    second = other_bundle(shop)
    shop.serve(Gateway(shop.platform, second), hours=range(12))
    shop.serve(hours=range(12, 24))
    second.folder.rename(shop.folder / "away")
    found = shop.skew()
    assert found.faults == []
    told = {each.manifest: each for each in found.manifests}
    assert "cannot be read" in told[second.digest].not_compared and told[second.digest].looked_at == 0
    assert told[shop.bundle.digest].looked_at == told[shop.bundle.digest].answers > 0


def test_a_large_day_is_sampled_by_the_hash_of_the_id(shop: Shop) -> None:
    """The same rows each time, and a larger share holds those of a smaller one."""
    shop.publish()
    shop.serve()
    taken = [served_on(shop.platform, DOMAIN, DAY, at_most=size)[0] for size in (40, 40, 80)]
    ids = [set(each.rows["request_id"]) for each in taken]
    assert ids[0] == ids[1] < ids[2]
    assert 20 < len(ids[0]) < 60 < len(ids[2])
    assert {each.computed for each in taken} == {asked_on(shop.platform, DAY).height}
    many = pl.Series([f"r{number}" for number in range(10_000)])
    assert 900 < drawn(many, 0.1).sum() < 1100


def test_figures_and_failing_rows_are_kept(shop: Shop) -> None:
    """Append-only, some rows of each feature, each with what was served, what should have been, and from where."""
    shop.publish(as_of=TWO_BEFORE)
    shop.serve()
    found = shop.skew()
    first = keep(shop.platform, DOMAIN, found, run_id="r1")
    assert keep(shop.platform, DOMAIN, found, run_id="r2") == first
    figures = skew_table(shop.platform, DOMAIN).read([DAY])
    assert dict(figures.select("feature", "mismatched").iter_rows())["order_hour"] == 0
    rows = skew_rows(shop.platform, DOMAIN).read([DAY])
    assert rows.group_by("feature", "kind").len()["len"].max() == 20
    row = rows.filter(feature="courier_mean_minutes_3d", kind="mismatched").row(0, named=True)
    assert row["online"] != row["offline"]
    assert row["view"] == "synthetic/courier" and row["view_version"] == shop.bundle.manifest.views[row["view"]]
    assert row["offline_available_at"] == moment(1) and row["offline_revision"] == 1
    assert row["online_event_time"] < row["offline_event_time"] and row["publication"]
    assert row["request"].startswith("{") and row["manifest"] == shop.bundle.digest
    shop.publish()
    assert skew_rows(shop.platform, DOMAIN).revisions([DAY])[0].rows == rows.height
