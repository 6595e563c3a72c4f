"""Two versions side by side: what they were made from, which requests they answer differently, and what makes it so."""

import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from rich.console import Console

from mlplatform.domains import synthetic
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DataError
from mlplatform.features.version import view_version
from mlplatform.operations import difference_view
from mlplatform.registry.bundle import Bundle, write_bundle
from mlplatform.registry.candidate import bundle_of, load_candidate, version_named
from mlplatform.reproducibility.difference import made
from mlplatform.reproducibility.difference.answers import Differently
from mlplatform.reproducibility.difference.difference import Difference, difference
from mlplatform_tests.fakes import tiny_domain
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome, train

DAY = "2024-01-24"
HOURS = range(2, 24)
"""Before the first of them the store held the values of the day before yesterday, which it has forgotten since."""


class World:
    """A home whose champion has answered a day, and other versions of its model."""

    def __init__(self, home: TrainedHome) -> None:
        self.home = home
        self.platform = home.platform
        self.champion = bundle_of(self.platform, str(home.entry.to_manifest))
        requests = asked_on(self.platform, DAY, hours=HOURS)
        Gateway(self.platform, self.champion).serve(requests, self.platform.home / "metrics")

    def edited(self, folder: Path, file: str, *edits: tuple[str, str], **changed: Any) -> Bundle:
        """The champion's weights with feature code in which some texts are others."""
        package = folder / "synthetic"
        shutil.copytree(Path(synthetic.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        text = (package / file).read_text()
        for before, after in edits:
            assert before in text
            text = text.replace(before, after)
        (package / file).write_text(text)
        domain = tiny_domain.import_package(package)
        told = self.champion.manifest
        arguments: dict[str, Any] = {
            "booster": self.champion.booster,
            "calibration": self.champion.calibration,
            "simple": self.champion.simple,
            "fitted": self.champion.fitted,
            "view_versions": {f"synthetic/{view.name}": view_version(domain, view) for view in domain.views},
            "record": told.record,
            "model_version": told.model_version,
            "rollback_target": None,
            "golden": _golden(self.champion),
        }
        model = domain.model("late_order")
        return write_bundle(self.platform.bundles, domain=domain, model=model, code=package, **(arguments | changed))

    def trained(self, as_of: str) -> Bundle:
        """Another model of the same code."""
        made = train(self.platform, self.home.model, as_of=as_of)
        folder = self.platform.training(DOMAIN.name, self.home.model.name, made.key)
        return bundle_of(self.platform, load_candidate(folder).manifest)

    def beside(self, other: Bundle, **asked: Any) -> Difference:
        """The champion and another version."""
        return difference(self.platform, DOMAIN, self.champion, other, **asked)


def _golden(bundle: Bundle) -> tuple[pl.DataFrame, Any]:
    return (
        pl.read_ipc(bundle.folder / "golden_rows.arrow"),
        pl.read_ipc(bundle.folder / "golden_scores.arrow").to_numpy()[:, 0],
    )


lower_threshold = ("decision=Threshold(value=0.5", "decision=Threshold(value=0.3")

without_items = (
    ('        order_items=pl.col("items").cast(pl.Int32),\n', ""),
    (
        """            Feature(
                name="order_items", dtype=pl.Int32(), unit="items", minimum=1, maximum=20, meaning="How much it is"
            ),
""",
        "",
    ),
)


def a_booster(inputs: int, column: int = 0) -> Any:
    """One that splits on one of its inputs."""
    rows = np.zeros((40, inputs))
    rows[:, column] = np.arange(40.0) / 10
    return xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(rows, label=rows[:, column] > 2), num_boost_round=3)


@pytest.fixture(scope="module")
def world(trained: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One for all tests: versions are only added."""
    return World(trained.copied_to(tmp_path_factory.mktemp("world") / "home"))


def compared(found: Difference) -> Differently:
    """The answers, which were compared."""
    assert found.answers is not None, found.not_compared
    return found.answers


def flips(found: Differently) -> dict[str, int]:
    """Flips by what was put in place of the other, and its cause, where there are any."""
    return {f"{each.link}: {each.cause}": each.flips for each in found.causes if each.flips}


def test_a_version_beside_itself_differs_in_nothing(world: World) -> None:
    """Nothing is told, no answer moves, and the logged scores are given again to the bit."""
    found = world.beside(world.champion)
    made, answers = found.made, compared(found)
    assert not (made.data or made.cut or made.features_added or made.views or made.fitted or made.files)
    assert not (made.code or made.functions or made.settings or made.environment or made.training_causes())
    assert (answers.flips, answers.reviews, answers.movement["1"]) == (0, 0, 0.0)
    assert answers.as_logged == answers.logged == answers.rows == asked_on(world.platform, DAY, hours=HOURS).height


def test_another_threshold_is_settings(world: World, tmp_path: Path) -> None:
    """Scores stay, predictions flip: all of them for the threshold, which is told with both values."""
    other = world.edited(tmp_path, "models.py", lower_threshold)
    found = world.beside(other)
    answers = compared(found)
    assert [(each.name, each.before, each.after) for each in found.made.settings] == [("decision", 0.5, 0.3)]
    assert answers.flips > 0
    assert flips(answers) == {"thresholds: settings": answers.flips}
    assert answers.movement["1"] == 0.0
    assert found.made.training_causes() == ()
    assert [(each.path, each.added, each.removed) for each in found.made.files] == [("synthetic/models.py", 1, 1)]


def test_other_feature_code_is_code(world: World, tmp_path: Path) -> None:
    """The first's weights on the second's inputs flip what flips; the function whose version moved is named."""
    other = world.edited(
        tmp_path, "views.py", ('pl.col("distance_km").cast', '(pl.col("distance_km") * 3).clip(0, 50).cast')
    )
    found = world.beside(other)
    answers = compared(found)
    assert [each.name for each in found.made.functions] == ["on-demand order"]
    assert answers.flips > 0
    assert flips(answers) == {"inputs: code": answers.flips}


def test_another_view_is_features(world: World, tmp_path: Path) -> None:
    """The table holds what the first's view computed; what the second's would have is computed, for what was known."""
    other = world.edited(tmp_path, "views.py", ('_share("late").alias(', '(1 - _share("late")).alias('))
    found = world.beside(other)
    answers = compared(found)
    assert [each.name for each in found.made.views] == ["synthetic/courier"]
    assert answers.flips > 0
    assert flips(answers) == {"inputs: features": answers.flips}
    assert answers.notes == ()


def test_another_view_and_other_feature_code_are_both_named(world: World, tmp_path: Path) -> None:
    """Nobody can tell which of them moved an input, so a view that moves nothing does not take it on itself."""
    before = 'pl.len().cast(pl.Int32).alias("courier_deliveries_3d")'
    other = world.edited(
        tmp_path,
        "views.py",
        (before, before.replace("pl.len()", "(pl.len() * 2 / 2)")),
        ('pl.col("distance_km").cast', '(pl.col("distance_km") * 3).clip(0, 50).cast'),
    )
    answers = compared(world.beside(other))
    assert answers.flips > 0
    assert flips(answers) == {"inputs: features and code": answers.flips}


def test_another_machine_is_environment(world: World, tmp_path: Path) -> None:
    """Of the same days another machine may have made other weights; how many cores it had makes none."""
    record = world.champion.manifest.record
    assert record.host is not None
    more = replace(record, host={**record.host, "cores": "999"})
    found = world.beside(world.edited(tmp_path / "more", "models.py", record=more))
    assert found.made.training_causes() == ()
    other = replace(record, host={**record.host, "machine": "another"})
    found = world.beside(world.edited(tmp_path / "other", "models.py", record=other))
    assert [each.name for each in found.made.environment] == ["machine"]
    assert found.made.training_causes() == ("environment",)


def test_large_files_of_like_lines_are_counted_at_once() -> None:
    """Thousands of lines that are each a little other: their number is asked, and not which became which."""
    old, new = ([f"    column_{number} = {text} + {number}" for number in range(3000)] for text in ("one", "two"))
    started = time.process_time()
    assert made._lines_changed(old, [*new, "", ""]) == {"added": 3002, "removed": 3000}
    assert made._lines_changed(["a", "b", "c"], ["a", "c", "d"]) == {"added": 1, "removed": 1}
    assert time.process_time() - started < 5


def test_a_rewritten_view_moves_nothing(world: World, tmp_path: Path) -> None:
    """Computed by its own function, a view that is only written otherwise gives what the table held, to the bit."""
    before = 'pl.len().cast(pl.Int32).alias("courier_deliveries_3d")'
    other = world.edited(tmp_path, "views.py", (before, before.replace("pl.len()", "(pl.len() * 2 / 2)")))
    found = world.beside(other)
    assert [each.name for each in found.made.views] == ["synthetic/courier"]
    assert compared(found).movement["1"] == 0.0


def test_other_fitted_values_are_data(world: World, tmp_path: Path) -> None:
    """They were learned from the training rows."""
    names = world.champion.manifest.features
    booster = a_booster(len(names), names.index("courier_code"))
    turned = {"courier_codes": list(reversed(world.champion.fitted["courier_codes"]))}
    first = world.edited(tmp_path / "first", "models.py", booster=booster)
    other = world.edited(tmp_path / "other", "models.py", booster=booster, fitted=turned)
    found = difference(world.platform, DOMAIN, first, other)
    answers = compared(found)
    assert [each.name for each in found.made.fitted] == ["courier_codes"]
    moved = {each.link: each.moved for each in answers.causes}
    assert moved["fitted values"] > 0
    assert (moved["thresholds"], moved["inputs"], moved["weights"]) == (0.0, 0.0, 0.0)
    assert set(flips(answers)) <= {"fitted values: data"}


def test_weights_of_other_days_are_data(world: World) -> None:
    """Trained by the same code and settings on fewer days: the days are named, and they are the cause."""
    other = world.trained("2024-01-22")
    found = world.beside(other)
    made, answers = found.made, compared(found)
    facts = next(each for each in made.data if each.table == "synthetic/derived/deliveries")
    assert (facts.added, facts.removed, facts.corrected) == ((), ("2024-01-22", "2024-01-23", "2024-01-24"), ())
    assert {"label cut-off", "rows"} <= {each.name for each in made.cut}
    assert made.training_causes() == ("data",)
    assert answers.movement["1"] > 0
    assert {each.link: each.cause for each in answers.causes}["weights"] == "data"
    assert {"log_loss", "rows"} <= {each.name for each in made.figures}
    assert sum(each.rows for each in answers.segments if each.segment == "district") == answers.rows
    assert sum(each.flips for each in answers.segments if each.segment == "district") == answers.flips


def test_two_causes_at_once_are_told_apart_as_far_as_they_can_be(world: World, tmp_path: Path) -> None:
    """Thresholds and inputs are separate links; weights whose making differs in several ways have no one cause."""
    older = world.trained("2024-01-22")
    other = world.edited(
        tmp_path,
        "views.py",
        ('pl.col("items").cast(pl.Int32)', '(pl.col("items") + 1).cast(pl.Int32)'),
        booster=older.booster,
        calibration=older.calibration,
        model_version=older.manifest.model_version,
    )
    found = world.beside(other)
    assert found.made.training_causes() == ("data", "code")
    assert [each.cause for each in compared(found).causes] == ["settings", "code", "data", "weights"]


def test_features_that_are_gone_belong_to_the_weights(world: World, tmp_path: Path) -> None:
    """The first's weights cannot be asked without them, so no link of inputs is told before the weights."""
    fewer = world.edited(
        tmp_path, "views.py", *without_items, booster=a_booster(len(world.champion.manifest.features) - 1)
    )
    found = world.beside(fewer)
    assert found.made.features_removed == ("order_items",)
    assert [each.link for each in compared(found).causes] == ["thresholds", "weights"]
    more = difference(world.platform, DOMAIN, fewer, world.champion)
    assert more.made.features_added == ("order_items",)
    assert [each.link for each in compared(more).causes] == ["thresholds", "inputs", "fitted values", "weights"]


def test_examples_are_the_flips_that_moved_most(world: World, tmp_path: Path) -> None:
    """Each has both answers, and its cause."""
    other = world.edited(tmp_path, "models.py", lower_threshold)
    answers = compared(world.beside(other))
    assert 0 < len(answers.examples) <= 5
    for each in answers.examples:
        assert (each.before, each.after, each.cause) == ("0", "1", "settings")
        assert each.probabilities[0] == each.probabilities[1]
        assert 0.3 <= (each.probabilities[1] or 0) < 0.5


def test_the_sample_is_bounded_and_the_same_each_time(world: World) -> None:
    """Drawn by id, of one day or of the newest."""
    few = compared(world.beside(world.champion, at_most=20, day=DAY))
    assert few.rows == 20
    assert few == compared(world.beside(world.champion, at_most=20))


def test_without_requests_the_rest_is_told(world: World) -> None:
    """A day on which nothing was asked leaves what was made differently, and says why no answers were compared."""
    found = world.beside(world.champion, day="2024-01-02")
    assert found.answers is None
    assert "no request of synthetic/late_order was logged on 2024-01-02" in found.not_compared


def test_versions_are_named_in_each_way(world: World) -> None:
    """By recipe, by digest or twelve digits of it, with or without the model; what is none is refused with advice."""
    digest, other = world.champion.digest, world.trained("2024-01-23")
    recipe = other.manifest.model_version
    for named in (other.digest, other.digest[:12], recipe, f"synthetic/late_order@{recipe}"):
        assert version_named(world.platform, named).digest == other.digest
    with pytest.raises(DataError, match="Name that model"):
        version_named(world.platform, f"synthetic/speed@{digest}")
    for nothing in ("2024-01-01-abcdef01", "champion", digest[:11]):
        with pytest.raises(DataError, match="there is no such bundle"):
            version_named(world.platform, nothing)


def test_versions_of_two_models_are_not_compared(world: World, tmp_path: Path) -> None:
    """They answer different questions."""
    other = tiny_domain.bundle_of(tmp_path / "bundles", tiny_domain.write_package(tmp_path / "package"))
    with pytest.raises(DataError, match="two versions of one model"):
        world.beside(other)


def test_it_is_shown_to_people_and_scripts(world: World, tmp_path: Path) -> None:
    """Both say the same: the setting, the flips, by segment and by cause."""
    other = world.edited(tmp_path, "models.py", lower_threshold)
    found = difference_view.compared(world.platform, world.champion.digest, other.digest, day=None, at_most=1000)
    console = Console(record=True, width=120, file=io.StringIO())
    difference_view.show(found, console)
    shown = console.export_text()
    assert "decision: 0.5 → 0.3" in shown
    assert f"{compared(found).flips} of {compared(found).rows} logged requests" in shown
    assert "district " in shown
    told = json.loads(difference_view.as_json(found))
    assert told["answers"]["flips"] == compared(found).flips
    assert told["made"]["settings"] == [{"name": "decision", "before": 0.5, "after": 0.3}]
