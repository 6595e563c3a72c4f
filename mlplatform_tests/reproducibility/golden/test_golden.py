"""Golden traffic: any change of code that moves an answer is caught and named; one that moves none is let pass."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from mlplatform.domain.column import Column, RowRule
from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.domain.view import Feature, OnDemand
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import districts
from mlplatform.errors import DataError, GoldenAltered, Unsigned
from mlplatform.operations.golden_view import show
from mlplatform.registry.candidate import bundle_of
from mlplatform.reproducibility.golden import answers
from mlplatform.reproducibility.golden import check as check_room
from mlplatform.reproducibility.golden.check import Checked, check
from mlplatform.reproducibility.golden.golden import CHANGES, Golden, found_in, write
from mlplatform.reproducibility.golden.record import answer_again, record
from mlplatform.scoring import postprocess
from mlplatform.scoring.booster import Scores
from mlplatform_tests.fakes.served_day import Gateway, asked_on
from mlplatform_tests.fakes.synthetic_home import TrainedHome

DAY = "2024-01-24"
ROWS = 40
NOW = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def served(trained: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> TrainedHome:
    """A home whose champion has answered a day."""
    home = trained.copied_to(tmp_path_factory.mktemp("served") / "home")
    bundle, requests = bundle_of(home.platform, str(home.entry.to_manifest)), asked_on(home.platform, DAY)
    Gateway(home.platform, bundle).serve(requests, home.platform.home / "metrics")
    without = Gateway(home.platform, bundle, online=str(home.platform.home / "no_store"))
    ids = [f"without {number}" for number in range(20)]
    without.serve(requests.head(20), home.platform.home / "metrics_without", ids=ids)
    return home


@pytest.fixture(scope="module")
def stored(served: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """Its golden traffic. For reading only."""
    folder = tmp_path_factory.mktemp("golden") / "synthetic" / "late_order"
    return record(served.platform, DOMAIN, served.model, folder, by="ann", rows=ROWS).golden


@pytest.fixture
def own(stored: Golden, tmp_path: Path) -> Golden:
    """A copy that a test may change."""
    shutil.copytree(stored.folder, tmp_path / "golden")
    return Golden(tmp_path / "golden")


def with_model(change: Callable[[ModelSpec], ModelSpec], **more: Any) -> Domain:
    """The domain with its binary model declared otherwise."""
    models = tuple(change(each) if each.name == "late_order" else each for each in DOMAIN.models)
    return replace(DOMAIN, models=models, **more)


def kinds(found: Checked) -> set[str]:
    """What moved."""
    return {each.what for each in found.moved}


def test_the_code_that_recorded_moves_nothing(stored: Golden) -> None:
    """Answered again by the same code, every request, view and probe is as it was, and as it was logged."""
    found = check(stored, DOMAIN)
    assert (found.moved, found.notes, found.rows) == ((), (), ROWS)
    assert stored.told.as_logged == ROWS


def test_the_sample_covers_what_was_answered(stored: Golden) -> None:
    """Each district, both predictions and answers without the online store are among few rows, with how many."""
    covered = stored.told.covered
    assert {f"district {name}" for name in districts} <= covered.keys()
    assert {"source model", "degraded true", "degraded false", "prediction 0", "prediction 1"} <= covered.keys()
    assert {"view synthetic/courier unavailable", "view synthetic/courier present"} <= covered.keys()
    assert any(each["id"].startswith("without ") for each in stored.requests)


def test_the_same_log_gives_the_same_sample(served: TrainedHome, stored: Golden, tmp_path: Path) -> None:
    """Nothing but the home decides what is stored."""
    again = record(served.platform, DOMAIN, served.model, tmp_path / "again", by="ann", rows=ROWS).golden
    assert again.told == stored.told


def again_into(golden: Golden, folder: Path) -> Golden:
    """The same golden traffic, stored in a folder."""
    files = {path: (golden.folder / path).read_bytes() for path in golden.told.files if path != CHANGES}
    return write(folder, golden.told, files, [])


def test_a_folder_of_other_things_is_refused(served: TrainedHome, stored: Golden, tmp_path: Path) -> None:
    """Whatever lies there stays, and a file of it is named. An empty folder, or one that is not there, is taken."""
    inside = tmp_path / "golden" / "synthetic" / "speed"
    again_into(stored, inside)
    notes = inside.parent / "notes.txt"
    notes.write_text("mine")
    for folder in (inside.parent, tmp_path):
        with pytest.raises(DataError, match=r"which is no golden traffic and would be lost.*--into"):
            record(served.platform, DOMAIN, served.model, folder, by="ann", rows=ROWS)
        with pytest.raises(DataError, match="which is no golden traffic and would be lost"):
            again_into(stored, folder)
    with pytest.raises(DataError, match=r"holds notes\.txt, which"):
        again_into(stored, notes)
    assert (notes.read_text(), Golden(inside).told) == ("mine", replace(stored.told, files=Golden(inside).told.files))
    (tmp_path / "empty").mkdir()
    assert again_into(stored, tmp_path / "empty").told.model == stored.told.model


def test_a_file_beside_golden_traffic_is_not_lost(own: Golden) -> None:
    """Somebody else's, in the folder itself: the folder is not replaced."""
    (own.folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt"):
        again_into(own, own.folder)
    assert (own.folder / "notes.txt").read_text() == "mine"


def test_a_kill_loses_nothing(own: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes while the folder is replaced, the old one or the new one is whole on the disk."""
    rename, before = Path.rename, own.digest

    def killed(path: Path, to: Path) -> Path:
        if path.name.startswith(".draft-"):
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        again_into(own, own.folder)
    assert [Golden(folder).digest for folder in found_in(own.folder.parent)] == [before]


def test_nothing_of_it_is_a_pickle_or_large(stored: Golden) -> None:
    """What is committed is JSON, Arrow and the booster's own format, some hundred kilobytes."""
    files = [path for path in stored.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".arrow", ".ubj"}
    assert sum(path.stat().st_size for path in files) < 300_000
    assert {path.relative_to(stored.folder).as_posix() for path in files} == {"golden.json", *stored.told.files}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (
            with_model(lambda model: replace(model, decision=Threshold(value=0.51, reason="a whim"))),
            "prediction of a score",
        ),
        (
            with_model(lambda model: replace(model, review_below=Threshold(value=0.56, reason="a whim"))),
            "needs_review of a score",
        ),
        (with_model(lambda model: replace(model, rules=lambda _: 0.3)), "probability of the rules"),
        (with_model(lambda model: replace(model, rules=lambda _: None)), "answer of the rules"),
        (
            with_model(lambda model: replace(model, serving=replace(model.serving, tiers=("rules", "low_confidence")))),
            "tier",
        ),
    ],
    ids=["decision", "review_below", "rules", "no rules", "tiers"],
)
def test_another_answer_is_caught(stored: Golden, changed: Domain, what: str) -> None:
    """A threshold, a rule or a tier that changed is named, also where no stored score lies beside the threshold."""
    assert what in kinds(check(stored, changed))


def other_kilometres(rows: pl.DataFrame) -> pl.DataFrame:
    """The features of the order, the distance a little otherwise."""
    return DOMAIN.on_demand[0].function(rows).with_columns(pl.col("order_distance") * pl.lit(1.001, pl.Float32))


def test_a_changed_feature_function_is_caught(stored: Golden) -> None:
    """The feature is named, with what it was and is; also where no score moves with it."""
    on_demand = (replace(DOMAIN.on_demand[0], function=other_kilometres),)
    found = check(stored, replace(DOMAIN, on_demand=on_demand))
    assert kinds(found) == {"feature order_distance"}
    assert found.rows_moved == ROWS
    assert " then, " in found.moved[0].detail


def test_a_feature_function_that_raises_is_caught(stored: Golden) -> None:
    """What it raises is told of the requests on which it does, and the others are compared."""

    def raises_on_the_hill(rows: pl.DataFrame) -> pl.DataFrame:
        if rows["district"].is_in(["hill"]).any():
            raise ValueError("no hill")
        return DOMAIN.on_demand[0].function(rows)

    found = check(stored, replace(DOMAIN, on_demand=(replace(DOMAIN.on_demand[0], function=raises_on_the_hill),)))
    assert kinds(found) == {"features"}
    assert found.rows_moved == stored.told.covered["district hill"]
    assert "no hill" in found.moved[0].detail


def test_a_changed_fitted_value_is_caught(stored: Golden) -> None:
    """How a stored fitted value is applied is code too."""
    fitted = replace(
        DOMAIN.fitted[0], apply=lambda rows, known: DOMAIN.fitted[0].apply(rows, known).with_columns(pl.all() + 1)
    )
    assert kinds(check(stored, replace(DOMAIN, fitted=(fitted,)))) == {"feature courier_code"}


def test_a_changed_view_is_caught(stored: Golden) -> None:
    """A view's function is run over stored facts, and the feature that it makes otherwise is named."""
    courier = DOMAIN.views[0]
    other = replace(
        courier,
        function=lambda facts, at: courier.function(facts, at).with_columns(pl.col("courier_late_share_3d") / 2),
    )
    found = check(stored, replace(DOMAIN, views=(other, *DOMAIN.views[1:])))
    assert kinds(found) == {"feature courier_late_share_3d of view synthetic/courier"}
    assert any("synthetic/courier has another version" in note for note in found.notes)


def test_a_view_rewritten_without_effect_passes(stored: Golden) -> None:
    """Another version of the same values is told, and fails nothing."""
    courier = DOMAIN.views[0]
    other = replace(courier, function=lambda facts, at: courier.function(facts, at))
    found = check(stored, replace(DOMAIN, views=(other, *DOMAIN.views[1:])))
    assert found.moved == ()
    assert any("another version" in note for note in found.notes)


@pytest.mark.parametrize(
    ("columns", "rules", "told"),
    [
        (("distance_km", {"maximum": 1.0}), (), "above the maximum"),
        (
            ("items", {}),
            (RowRule(name="few items", holds=lambda: pl.col("items") < 2, meaning="one at a time"),),
            "few items: broken: one at a time",
        ),
    ],
    ids=["a column", "a rule"],
)
def test_a_changed_request_contract_is_caught(
    stored: Golden, columns: tuple[str, dict[str, float]], rules: tuple[RowRule, ...], told: str
) -> None:
    """Requests that were answered and would be refused now are named, with the refusal."""
    name, change = columns
    declared = tuple(
        replace(each, **change) if each.name == name else each  # type: ignore[arg-type]  # of one column
        for each in DOMAIN.requests.columns
    )
    found = check(stored, replace(DOMAIN, requests=replace(DOMAIN.requests, columns=declared, rules=rules)))
    refused = [each for each in found.moved if each.what == "request"]
    assert refused
    assert told in refused[0].detail


def test_a_new_optional_column_passes(stored: Golden) -> None:
    """Callers need not send it, and nothing moves."""
    column = Column(name="gift", dtype=pl.Boolean(), meaning="Whether it is a gift", nullable=True)
    requests = replace(DOMAIN.requests, columns=(*DOMAIN.requests.columns, column))
    assert check(stored, replace(DOMAIN, requests=requests)).moved == ()


def test_a_new_feature_passes_and_is_told(stored: Golden) -> None:
    """The stored weights do not read it, so they answer as they did."""
    added = OnDemand(
        name="twice",
        meaning="The distance, twice",
        function=lambda rows: rows.select(twice_the_way=pl.col("distance_km").cast(pl.Float32) * 2),
        features=(Feature(name="twice_the_way", dtype=pl.Float32(), meaning="Twice the way"),),
    )
    declared = with_model(
        lambda model: replace(model, on_demand=(*model.on_demand, "twice")), on_demand=(*DOMAIN.on_demand, added)
    )
    found = check(stored, declared)
    assert found.moved == ()
    assert "twice_the_way" in found.notes[0]


def test_a_feature_that_is_gone_is_caught(stored: Golden) -> None:
    """Weights that read what is no longer declared answer nothing, which is named."""
    on_demand = replace(
        DOMAIN.on_demand[0],
        features=DOMAIN.on_demand[0].features[:-1],
        function=lambda rows: DOMAIN.on_demand[0].function(rows).drop("order_hour"),
    )
    assert kinds(check(stored, replace(DOMAIN, on_demand=(on_demand,)))) == {"feature order_hour"}


def test_changed_post_processing_of_the_platform_is_caught(stored: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only a domain's code may move an answer."""
    unrounded = postprocess.answers

    def rounded(model: ModelSpec, scores: Scores) -> pl.DataFrame:
        return unrounded(model, scores).with_columns(pl.col("probability").round(3))

    monkeypatch.setattr(answers, "answers", rounded)
    found = check(stored, DOMAIN)
    assert "probability" in kinds(found)
    assert 0 < found.largest <= 0.0005


def test_another_machine_is_held_within_the_tolerance(own: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Last bits that something else computes are told and let pass; what is further off is not."""
    by_bits = answers._scores

    def a_bit_off(*given: object, **named: object) -> Scores:
        return by_bits(*given, **named) * (1 + factor)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(answers, "_scores", a_bit_off)
    factor = 1e-9
    assert kinds(check(own, DOMAIN)) == {"score"}
    rewrite(own, computing={**own.told.computing, "polars": "1.0"})
    found = check(Golden(own.folder), DOMAIN)
    assert found.moved == ()
    assert "polars 1.0 then" in found.notes[0]
    factor = 1e-2
    assert kinds(check(Golden(own.folder), DOMAIN)) == {"score"}


def test_the_prediction_of_a_regression_is_its_score(own: Golden) -> None:
    """Elsewhere it passes within the tolerance, as the score does; another class or `needs_review` never does."""
    rewrite(own, computing={**own.told.computing, "polars": "1.0"})
    judge = check_room._Judge(Golden(own.folder))
    minutes = {"probability": None, "prediction": 100.0, "confidence": None, "needs_review": False}
    late = minutes | {"probability": 0.5, "prediction": 1}

    def moved(before: dict[str, Any], **now: object) -> list[str]:
        return [each.what for each in check_room._answers(judge, before, before | now, "")]

    assert moved(minutes, prediction=100.005) == []
    assert moved(minutes, prediction=100.02) == ["prediction"]
    assert moved(late, probability=0.49999, prediction=0) == ["prediction"]
    assert moved(minutes, prediction=100.005, needs_review=True) == ["needs_review"]


def rewrite(golden: Golden, **told: object) -> None:
    """Change what `golden.json` says of itself."""
    path = golden.folder / "golden.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


def test_an_altered_file_is_named(own: Golden) -> None:
    """An answer edited by hand is not compared with."""
    path = own.folder / "answers.jsonl"
    path.write_text(path.read_text().replace('"prediction": 0', '"prediction": 1', 1))
    with pytest.raises(GoldenAltered, match=r"answers\.jsonl is not what was stored"):
        Golden(own.folder)


def test_recording_over_it_needs_a_reason(served: TrainedHome, own: Golden) -> None:
    """Without one nothing is replaced; with one it is kept, with who and what it replaced."""
    with pytest.raises(Unsigned):
        record(served.platform, DOMAIN, served.model, own.folder, by="ann", rows=10)
    recorded = record(served.platform, DOMAIN, served.model, own.folder, by="bob", rows=10, reason="fewer will do")
    (change,) = Golden(own.folder).changes
    assert (change.by, change.reason, change.moved, change.replaced) == ("bob", "fewer will do", (), own.digest)
    assert recorded.golden.told.rows == 10


def test_a_change_that_says_so_passes_from_then_on(own: Golden) -> None:
    """Answered again with a reason, the stored answers are the new ones; what moved is kept, the newest last."""
    changed = with_model(lambda model: replace(model, decision=Threshold(value=0.4, reason="missed ones cost more")))
    assert check(own, changed).moved
    with pytest.raises(Unsigned):
        answer_again(own, changed, by="ann", reason=" ", now=NOW)
    answer_again(own, changed, by="ann", reason="missed ones cost more", now=NOW)
    again = Golden(own.folder)
    found = check(again, changed)
    assert found.moved == ()
    assert found.changes[-1].reason == "missed ones cost more"
    assert any("prediction" in line for line in found.changes[-1].moved)
    assert check(again, DOMAIN).moved
    answer_again(again, DOMAIN, by="bob", reason="they do not", now=NOW + timedelta(days=1))
    assert [each.by for each in Golden(own.folder).changes] == ["ann", "bob"]


def test_answering_again_without_a_change_writes_nothing(own: Golden) -> None:
    """A reason alone moves nothing."""
    assert answer_again(own, DOMAIN, by="ann", reason="to be sure", now=NOW).change is None
    assert Golden(own.folder).digest == own.digest


def test_fewer_trees_make_a_smaller_folder(served: TrainedHome, stored: Golden, tmp_path: Path) -> None:
    """The answers are then those of the trees that are kept; that the whole booster answers as logged is told."""
    small = record(served.platform, DOMAIN, served.model, tmp_path / "small", by="ann", rows=ROWS, trees=3).golden
    assert (small.folder / "model.ubj").stat().st_size < (stored.folder / "model.ubj").stat().st_size / 2
    assert small.told.as_logged == ROWS
    assert small.answers != stored.answers
    assert check(small, DOMAIN).moved == ()


def test_without_answers_there_is_nothing_to_keep(trained: TrainedHome, tmp_path: Path) -> None:
    """The refusal says where answers come from."""
    with pytest.raises(DataError, match="mlplatform simulate"):
        record(trained.platform, DOMAIN, trained.model, tmp_path / "golden", by="ann")


def test_folders_are_found(stored: Golden, tmp_path: Path) -> None:
    """All below a root, and none where there is none."""
    assert found_in(stored.folder.parent.parent) == [stored.folder]
    assert found_in(tmp_path) == []


def changed_in_three_ways() -> Domain:
    """A feature of every request, the rule of thumb and a threshold at once; the simple model reads that feature."""
    on_demand = (replace(DOMAIN.on_demand[0], function=other_kilometres),)
    return with_model(
        lambda model: replace(
            model,
            rules=lambda row: min(0.9, model.rules(row) + 0.05),  # type: ignore[operator]  # a number
            review_below=Threshold(value=0.56, reason="a whim"),
        ),
        on_demand=on_demand,
    )


def test_a_loud_change_hides_no_quiet_one(own: Golden) -> None:
    """What follows from nothing else that moved is told and kept; what follows from it, or would, is not."""
    changed = changed_in_three_ways()
    found = check(own, changed)
    assert kinds(found) == {"feature order_distance", "probability of the rules", "needs_review of a score"}
    assert found.rows_moved == ROWS
    answer_again(own, changed, by="ann", reason="three at once", now=NOW)
    (change,) = Golden(own.folder).changes
    assert {line.partition(":")[0] for line in change.moved} == kinds(found)


def test_an_input_that_moved_is_told_apart_from_an_answer(stored: Golden) -> None:
    """How many answers moved is counted, also where the input is what is told."""
    near = check(stored, replace(DOMAIN, on_demand=(replace(DOMAIN.on_demand[0], function=other_kilometres),)))
    shown = told(near)
    assert near.rows_answered_otherwise == 0
    assert f"an input of {ROWS} of {ROWS} requests moved, and no answer did" in shown
    assert "answered otherwise" not in shown

    def far_away(rows: pl.DataFrame) -> pl.DataFrame:
        return DOMAIN.on_demand[0].function(rows).with_columns(pl.col("order_distance") * 9)

    far = check(stored, replace(DOMAIN, on_demand=(replace(DOMAIN.on_demand[0], function=far_away),)))
    assert kinds(far) == {"feature order_distance"}
    assert 0 < far.rows_answered_otherwise < ROWS and far.largest > 0
    rest = ROWS - far.rows_answered_otherwise
    assert f"answered otherwise, by up to {far.largest:.3g}; of {rest} more an input moved" in told(far)


def test_a_threshold_beside_no_request_moves_no_request(stored: Golden) -> None:
    """It is said that the requests are answered as they were, and no request is named."""
    whim = with_model(lambda model: replace(model, decision=Threshold(value=0.5000001, reason="a whim")))
    shown = told(check(stored, whim))
    assert f"all {ROWS} requests are answered as they were, but" in shown
    assert "requests: " not in shown


def told(found: Checked) -> str:
    """What the terminal says."""
    printed = io.StringIO()
    show([found], Console(file=printed, width=80))
    return printed.getvalue()


def test_answered_again_its_coverage_is_made_anew(own: Golden) -> None:
    """What the rows cover and how many are still as logged is of now, and comes back with the code."""
    changed = with_model(
        lambda model: replace(model, rules=lambda _: 0.3, review_below=Threshold(value=0.99, reason="be sure"))
    )
    again = answer_again(own, changed, by="ann", reason="be sure", now=NOW).golden
    assert again.told.covered["rules 0.3"] == ROWS
    assert again.told.covered["source model"] == own.told.covered["source model"]
    reviewed = [each["model"]["needs_review"] for each in again.answers]
    moved = sum(now != then["model"]["needs_review"] for now, then in zip(reviewed, own.answers, strict=True))
    assert again.told.as_logged <= ROWS - moved + own.told.covered["degraded true"]
    assert again.told.as_logged < ROWS
    back = answer_again(again, DOMAIN, by="bob", reason="too sure", now=NOW + timedelta(days=1)).golden
    assert (back.told.covered, back.told.as_logged) == (own.told.covered, ROWS)
