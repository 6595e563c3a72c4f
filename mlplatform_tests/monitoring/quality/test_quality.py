"""Data quality of a day: an honest one is quiet, each fault is named, what is gone or odd is told and not raised."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.online.publish import publish_values
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.quality.day_quality import DayQuality, FeatureQuality, ManifestQuality
from mlplatform.monitoring.quality.quality import keep, quality_of_day
from mlplatform.monitoring.quality.reference import reference_of, reference_path
from mlplatform.monitoring.quality.sketch import Sketch
from mlplatform.monitoring.quality.tables import quality_table
from mlplatform.registry.bundle import write_bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.booster import Matrix
from mlplatform_tests.fakes.logged_vectors import log_vectors
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome

DAY, NEXT = "2024-01-25", "2024-01-26"


class Shop:
    """A trained home, and rows that its model could be served."""

    def __init__(self, home: TrainedHome) -> None:
        self.platform, self.manifest = home.platform, home.entry.to_manifest
        self.folder = home.folder
        self.bundle = bundle_of(home.platform, self.manifest)
        self.names = list(self.bundle.manifest.features)

    def rows(self, count: int = 400, seed: int = 0) -> Matrix:
        """Rows of the training window, drawn anew."""
        sample = reference_of(self.platform, DOMAIN, self.manifest).sample
        return sample[np.random.default_rng(seed).integers(0, len(sample), count)].copy()

    def log(self, rows: Matrix, *, day: str = DAY, manifest: str = "", model: str = "late_order") -> None:
        """They were served on a day."""
        log_vectors(self.platform, day, rows, manifest=manifest or self.manifest, model=model)

    def judged(self, day: str = DAY) -> DayQuality:
        """What is found of the day, kept."""
        found = quality_of_day(self.platform, DOMAIN, day)
        keep(self.platform, DOMAIN, found, run_id="test")
        return found

    def column(self, name: str) -> int:
        """Place of a feature."""
        return self.names.index(name)

    def another_manifest(self) -> str:
        """A second bundle of the model, of the same training set."""
        bundle = self.bundle
        rows = pl.read_ipc(bundle.folder / "golden_rows.arrow")
        return write_bundle(
            self.platform.bundles,
            domain=bundle.domain,
            model=bundle.model,
            booster=bundle.booster,
            calibration=bundle.calibration,
            simple=bundle.simple,
            fitted=bundle.fitted,
            view_versions=bundle.manifest.views,
            record=bundle.manifest.record,
            model_version=bundle.manifest.model_version,
            rollback_target="another",
            golden=(rows, bundle.golden()[1]),
            code=bundle.folder / "code" / bundle.manifest.package,
        ).digest


@pytest.fixture
def shop(own_trained: TrainedHome) -> Shop:
    """One of its own for each test."""
    return Shop(own_trained)


def the_only(found: DayQuality) -> ManifestQuality:
    """The one manifest that served."""
    (manifest,) = found.manifests
    return manifest


def by_name(found: DayQuality) -> dict[str, FeatureQuality]:
    """Features of the one manifest."""
    return {each.feature: each for each in the_only(found).features}


def of_model(found: DayQuality) -> list[Finding]:
    """What is wrong with what the model was served; the sample has no orders after its last day."""
    return [each for each in found.findings if each.subject == "synthetic/late_order"]


def test_a_day_that_a_real_gateway_served_is_as_trained(shop: Shop, tmp_path: Path) -> None:
    """Every feature stands there with its figures, the most important first, and nothing is found."""
    publish_values(shop.platform, DOMAIN, as_of="2024-01-19")
    requests = asked_on(shop.platform, "2024-01-20")
    Gateway(shop.platform, shop.bundle).serve(requests, tmp_path / "metrics")
    found = shop.judged("2024-01-20")
    told = the_only(found)
    assert (told.answers, told.computed, told.undeclared) == (requests.height, requests.height, ())
    assert {each.feature for each in told.features} == set(shop.names)
    importances = [each.importance for each in told.features]
    assert importances == sorted(importances, reverse=True) and sum(importances) == pytest.approx(1)
    assert not found.findings


def test_figures_are_of_all_rows(shop: Shop) -> None:
    """Null rate, range and mean shift against what NumPy says of the very rows, whatever the slices of the log."""
    rows = shop.rows(1_000)
    place = shop.column("order_distance")
    rows[:300, place] = np.nan
    rows[300:350, place] = 60
    shop.log(rows)
    told = by_name(shop.judged())["order_distance"]
    training = reference_of(shop.platform, DOMAIN, shop.manifest)
    assert (told.null_rate, told.out_of_range) == (0.3, 0.05)
    moved = (np.nanmean(rows[:, place].astype(float)) - training.bins.centre[place]) / training.bins.scale[place]
    assert told.mean_shift == pytest.approx(moved, abs=0.01)


@pytest.mark.parametrize(
    ("feature", "value", "rule"),
    [
        ("order_distance", np.nan, "null_rate"),
        ("order_distance", 900.0, "out_of_range"),
        ("courier_code", np.nan, "new_category"),
        ("courier_code", 77.0, "new_category"),
        ("order_items", 15.0, "new_category"),
        ("courier_mean_minutes_3d", np.inf, "out_of_range"),
    ],
)
def test_a_fault_is_a_finding(shop: Shop, feature: str, value: float, rule: str) -> None:
    """In words that name the feature, how much of it, against which bound, and what to look at."""
    rows = shop.rows()
    rows[:200, shop.column(feature)] = value
    shop.log(rows)
    (finding,) = of_model(shop.judged())
    assert (finding.layer, finding.rule, finding.manifest, finding.day) == ("data_quality", rule, shop.manifest, DAY)
    assert finding.features == (feature,)
    assert finding.figures["value"] >= 0.5 > finding.figures["bound"]
    assert f"{feature}: 5" in finding.summary and "usual up to" in finding.summary and "Look" in finding.summary
    assert finding.harmful == (finding.figures["harm"] >= 0.002)


def test_a_key_feature_that_moves_does_harm(shop: Shop) -> None:
    """The distribution of what matters most: harmful, and one finding for all that moved."""
    rows = shop.rows()
    rows[:, shop.column("order_distance")] += 4
    rows[:, shop.column("courier_mean_minutes_3d")] += 60
    shop.log(rows)
    found = shop.judged()
    (finding,) = of_model(found)
    assert finding.rule == "drift" and finding.harmful
    assert set(finding.features) == {"order_distance", "courier_mean_minutes_3d"}
    importance = sum(by_name(found)[name].importance for name in finding.features)
    assert finding.figures["importance"] == pytest.approx(importance)


def test_a_feature_that_matters_to_nobody_wakes_nobody(shop: Shop) -> None:
    """The model has learned nothing from it: found, shown, and harmless."""
    rows = shop.rows()
    shop.log(rows)
    idle = min(the_only(shop.judged()).features, key=lambda each: each.importance).feature
    rows[:, shop.column(idle)] = np.nan
    shop.log(rows, day=NEXT)
    found = [each for each in shop.judged(NEXT).findings if each.features == (idle,)]
    assert found and not found[0].harmful


def test_a_day_without_traffic_has_no_figures(shop: Shop) -> None:
    """Neither before the first answer ever nor after it."""
    assert shop.judged().manifests == ()
    shop.log(shop.rows())
    assert shop.judged(NEXT).manifests == ()


LEAST = int(DOMAIN.model("late_order").monitoring.min_rows.value)


@pytest.mark.parametrize("count", [1, LEAST - 1])
def test_a_day_of_few_rows_is_shown_and_not_judged(shop: Shop, count: int) -> None:
    """Whatever they hold."""
    rows = shop.rows(count)
    rows[:, shop.column("order_distance")] = 900
    shop.log(rows)
    found = shop.judged()
    assert by_name(found)["order_distance"].out_of_range == 1 and not by_name(found)["order_distance"].rule
    assert f"{count} rows are fewer than the {LEAST}" in the_only(found).not_judged
    assert not of_model(found)


def test_a_day_on_which_every_value_is_missing_is_one_finding_of_each_kind(shop: Shop) -> None:
    """It has no distribution, and says so."""
    shop.log(np.full_like(shop.rows(), np.nan))
    found = shop.judged()
    assert all(each.null_rate == 1 and np.isnan(each.psi) for each in the_only(found).features)
    assert {each.rule: len(each.features) for each in of_model(found)} == {
        "new_category": 1,
        "null_rate": len(shop.names) - 1,
    }


def test_answers_without_features_are_counted(shop: Shop) -> None:
    """All of them were fallen back, or repeated: there is nothing to judge."""
    log_vectors(shop.platform, DAY, shop.rows(30), manifest=shop.manifest, computed=False)
    told = the_only(shop.judged())
    assert (told.answers, told.computed, told.features) == (30, 0, ())
    assert told.not_judged == "no answer had features"


def test_a_feature_that_the_domain_dropped_is_judged_by_its_bundle(shop: Shop) -> None:
    """The model is served with it still; it is told that nobody declares it."""
    shop.log(shop.rows())
    without = replace(DOMAIN.model("late_order"), fitted=())
    domain = replace(DOMAIN, models=tuple(without if each.name == without.name else each for each in DOMAIN.models))
    found = quality_of_day(shop.platform, domain, DAY)
    assert the_only(found).undeclared == ("courier_code",)
    assert by_name(found)["courier_code"].judged


def test_a_model_that_the_domain_dropped_is_judged_all_the_same(shop: Shop) -> None:
    """By the bounds that hold where nothing is declared."""
    shop.log(shop.rows())
    domain = replace(DOMAIN, models=tuple(each for each in DOMAIN.models if each.name != "late_order"))
    assert by_name(quality_of_day(shop.platform, domain, DAY))["order_distance"].judged


def test_manifests_are_judged_each_by_itself(shop: Shop) -> None:
    """Two of one model and one that is unknown: the fault of the one is not the other's."""
    second = shop.another_manifest()
    rows = shop.rows()
    shop.log(rows)
    rows[:, shop.column("order_distance")] = np.nan
    shop.log(rows, manifest=second)
    shop.log(rows[:50], manifest="0" * 64, model="speed")
    found = shop.judged()
    assert [(each.manifest, each.answers) for each in found.manifests[2:]] == [("0" * 64, 50)]
    drifted = [each for each in found.findings if each.rule == "null_rate"]
    assert [each.manifest for each in drifted] == [second]
    assert {each.rule for each in found.findings if each.subject == "synthetic/speed"} == {"not_judged"}


@pytest.mark.parametrize("lost", ["bundle", "training set", "recipe", "damaged training set"])
def test_what_a_model_was_trained_on_may_be_gone(shop: Shop, lost: str) -> None:
    """Told with its reason, and not raised; once the reference was made, it is no longer needed."""
    shop.log(shop.rows())
    path = reference_path(shop.platform, DOMAIN, shop.manifest)
    kept = path.read_bytes()
    path.unlink()
    if lost == "bundle":
        shutil.rmtree(shop.bundle.folder)
    elif lost == "damaged training set":
        (shop.folder / "training_set.parquet").write_bytes(b"PAR1")
    else:
        (shop.folder / {"training set": "training_set.parquet", "recipe": "recipe.json"}[lost]).unlink()
    found = shop.judged()
    (finding,) = of_model(found)
    assert (finding.rule, finding.harmful) == ("not_judged", False)
    assert the_only(found).answers == 400 and the_only(found).not_judged in finding.summary
    path.write_bytes(kept)
    assert by_name(shop.judged())["order_distance"].judged


def test_a_column_of_the_training_set_may_be_renamed(shop: Shop) -> None:
    """The message names what is lacking."""
    shop.log(shop.rows())
    reference_path(shop.platform, DOMAIN, shop.manifest).unlink()
    path = shop.folder / "training_set.parquet"
    pl.read_parquet(path).rename({"distance_km": "way_km"}).write_parquet(path)
    assert "lacks distance_km" in the_only(shop.judged()).not_judged


def test_a_damaged_reference_is_made_again(shop: Shop) -> None:
    """To the bit what it was."""
    path = reference_path(shop.platform, DOMAIN, shop.manifest)
    made = reference_of(shop.platform, DOMAIN, shop.manifest)
    path.write_bytes(path.read_bytes()[:1000])
    again = reference_of(shop.platform, DOMAIN, shop.manifest)
    for name in Sketch.__dataclass_fields__:
        assert (getattr(made.sketches, name) == getattr(again.sketches, name)).all()
    assert made.days == again.days and (made.importance == again.importance).all()


def test_only_whole_days_tell_what_is_usual(shop: Shop) -> None:
    """Half a day has another mix of hours."""
    reference = reference_of(shop.platform, DOMAIN, shop.manifest)
    assert (reference.days[0], reference.days[-1]) == ("2024-01-04", "2024-01-23")
    assert reference.sketches.rows.min() > 180


def test_a_fault_that_goes_on_is_found_on_each_day(shop: Shop) -> None:
    """The days before are read from the table: what was wrong there does not become usual."""
    days = [f"2024-01-{number}" for number in range(25, 32)]
    for number, day in enumerate(days):
        rows = shop.rows(seed=number)
        rows[:, shop.column("order_distance")] += 4
        shop.log(rows, day=day)
        assert [each.rule for each in of_model(shop.judged(day))] == ["drift"], day


def test_a_day_judged_again_is_the_same(shop: Shop) -> None:
    """To the bit, so that no new revision is written; and days after it play no part."""
    shop.log(shop.rows())
    shop.log(shop.rows(seed=1), day=NEXT)
    shop.judged()
    shop.judged(NEXT)
    shop.judged()
    assert [each.number for each in quality_table(shop.platform, DOMAIN).revisions()] == [1, 1]


def test_vectors_of_another_length_are_told(shop: Shop) -> None:
    """Whoever wrote them."""
    shop.log(shop.rows()[:, :4])
    assert "another length than the 9 features" in the_only(shop.judged()).not_judged
