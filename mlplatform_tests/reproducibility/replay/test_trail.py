"""The trail of an answer: every step from the answer to the landed files, and what was altered on it named."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.domain.source import Query
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.features.tables import Tables
from mlplatform.features.tombstones import Tombstone, bury
from mlplatform.monitoring.prediction_log import schema
from mlplatform.provenance.computing import computing_text
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Ledger
from mlplatform.reproducibility.replay import value_trail
from mlplatform.reproducibility.replay.find import find
from mlplatform.reproducibility.replay.node import Node
from mlplatform.reproducibility.replay.trail import trail
from mlplatform_tests.fakes.replayed_world import flip_bit
from mlplatform_tests.fakes.s3_endpoint import Held
from mlplatform_tests.fakes.served_day import Gateway
from mlplatform_tests.fakes.synthetic_home import TrainedHome, backfill, land_orders, platform_in

AT = datetime(2024, 1, 25, 12, 30, tzinfo=UTC)
STAGES = ("derived/deliveries", "base/orders", "validated/orders", "raw/orders", "landing/orders")


@pytest.fixture
def answered(own_trained: TrainedHome, tmp_path: Path) -> TrainedHome:
    """A home in which one order was answered, on the day after the last one, by the promoted model."""
    home = own_trained
    bundle = bundle_of(home.platform, home.entry.to_manifest)
    request = rows(date(2024, 1, 24), rows_per_day=1).select(each.name for each in DOMAIN.requests.columns)
    Gateway(home.platform, bundle, request_time=True).serve(
        request.with_columns(pl.lit(AT).alias("at")), tmp_path / "served", ids=["asked"]
    )
    return home


def row_of(home: TrainedHome) -> dict[str, Any]:
    """The row of the answer."""
    return find(home.platform, DOMAIN, "asked").row(0, named=True)


def nodes(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for child in node.children:
        yield from nodes(child)


def named(tree: Node, label: str) -> Node:
    """The first node of a name."""
    return next(each for each in nodes(tree) if each.label == label)


def test_every_step_is_there(answered: TrainedHome) -> None:
    """Answer, ledger, model with what it was made from, and each value by its revisions to the landed files."""
    row = row_of(answered)
    assert row["computing"] == computing_text()
    tree = trail(answered.platform, DOMAIN, row, verify=True)
    assert list(tree.faults()) == []
    assert tree.label == "answer asked"
    assert f"probability {row['probability']:.6g}" in tree.detail
    model = named(tree, f"model synthetic/late_order {answered.recipe.key}")
    bundle = bundle_of(answered.platform, row["manifest"])
    assert row["manifest"] in model.detail
    assert bundle.manifest.record.training_set in named(model, "training set").detail
    assert bundle.manifest.record.lock in named(model, "environment").detail
    assert "promote champion" in named(model, "ledger entry 1").detail
    for view in ("courier", "district"):
        (revision,) = named(named(tree, "feature vector"), f"synthetic/{view}").children
        store = Tables(answered.platform, DOMAIN).features(DOMAIN.view(view)[1])  # type: ignore[arg-type]
        (held,) = store.revisions(["2024-01-24"])
        assert revision.label == f"synthetic/feature_store/{view}/2024-01-24@1"
        assert held.content_hash in revision.detail
        assert held.run_id in revision.detail
        # Three days of the window, the newest first, each down to its file.
        for derived, day in zip(revision.children, ("2024-01-24", "2024-01-23", "2024-01-22"), strict=True):
            down, node = [derived.label], derived
            while node.children:
                (node,) = node.children
                down.append(node.label)
            assert down == [f"synthetic/{stage}/{day}" + ("@1" * (stage[:7] != "landing")) for stage in STAGES]
            assert f"{day}.parquet" in node.detail
    features = named(tree, "synthetic/courier").detail
    column = bundle.manifest.features.index("courier_deliveries_3d")
    assert f"courier_deliveries_3d {row['features'][column]:.6g}" in features


def test_a_trail_keeps_to_what_was_read(answered: TrainedHome) -> None:
    """After a correction of one day, and with its file landed again, the answer still goes back to the first."""
    later = platform_in(answered.platform.home, datetime(2024, 3, 1, tzinfo=UTC))
    land_orders(later, ["2024-01-23"], rows_per_day=150)
    backfill(later, list(answered.recipe.facts))
    tree = trail(later, DOMAIN, row_of(answered), verify=True)
    assert list(tree.faults()) == []
    assert "synthetic/raw/orders/2024-01-23@1" in [each.label for each in nodes(tree)]
    assert "landed again since, as raw/orders/2024-01-23@2" in named(tree, "synthetic/landing/orders/2024-01-23").detail
    (folder,) = {Path(each.detail.split(",")[0]).parent for each in nodes(tree) if "/landing/" in each.label}
    (folder / "2024-01-22.parquet").unlink()
    tree = trail(later, DOMAIN, row_of(answered), verify=True)
    assert list(tree.faults()) == []
    assert "not there any more" in named(tree, "synthetic/landing/orders/2024-01-22").detail


def test_a_value_is_followed_to_the_day_that_it_was_of(answered: TrainedHome) -> None:
    """A store that was a day behind told the value of the day before, whatever the newest is."""
    row = row_of(answered)
    courier = {**row["views"][0], "event_time": datetime(2024, 1, 24, tzinfo=UTC)}
    tree = trail(answered.platform, DOMAIN, {**row, "views": [courier], "digest": None})
    (revision,) = named(named(tree, "feature vector"), "synthetic/courier").children
    assert revision.label == "synthetic/feature_store/courier/2024-01-23@1"
    nowhere = {**courier, "event_time": datetime(2024, 1, 24, 7, tzinfo=UTC)}
    ((label, fault),) = trail(answered.platform, DOMAIN, {**row, "views": [nowhere], "digest": None}).faults()
    assert (label, "no revision 1 of its table holds that row" in fault) == ("synthetic/courier", True)


@pytest.mark.parametrize("stage", ["feature_store/district", "derived/deliveries", "validated/orders", "raw/orders"])
def test_a_revision_that_was_altered_is_named(answered: TrainedHome, stage: str) -> None:
    """Whichever stage it is of; without `verify` nothing is read, and nothing said."""
    name = f"{stage}/2024-01-24@1"
    _alter(answered, stage, "2024-01-24")
    row = row_of(answered)
    ((label, fault),) = trail(answered.platform, DOMAIN, row, verify=True).faults()
    assert label == f"synthetic/{name}"
    assert ".parquet" in fault
    assert list(trail(answered.platform, DOMAIN, row).faults()) == []


def test_a_landed_file_that_was_altered_is_named(answered: TrainedHome) -> None:
    """It is there under its name, and is neither what was taken in nor what landed later."""
    path = answered.platform.landing("synthetic") / "orders" / "2024-01-24.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    ((label, fault),) = trail(answered.platform, DOMAIN, row_of(answered), verify=True).faults()
    assert label == "synthetic/landing/orders/2024-01-24"
    assert str(path) in fault


def test_a_landed_object_is_looked_at_where_it_lies(answered: TrainedHome, s3: Held) -> None:
    """In a bucket: the same, gone or another; where nobody can look, that is said, and it is no fault."""
    away = replace(answered.platform, landings=f"s3://{s3.bucket}/landing", s3=lambda: s3.client)
    label, key = "synthetic/landing/orders/2024-01-24", "landing/synthetic/orders/2024-01-24.parquet"
    row = row_of(answered)
    assert "not there any more" in named(trail(away, DOMAIN, row, verify=True), label).detail
    s3.put(key, b"what landed")
    version = s3.client.head_object(Bucket=s3.bucket, Key=key)["ETag"].strip('"')
    ((at, fault),) = trail(away, DOMAIN, row, verify=True).faults()
    assert (at, fault.endswith(f"is not what was taken in: its version is {version}")) == (label, True)
    nowhere = replace(away, landings=f"s3://{s3.bucket}-not-there/landing")
    tree = trail(nowhere, DOMAIN, row, verify=True)
    assert "not looked at: " in named(tree, label).detail
    assert list(tree.faults()) == []


def test_what_lies_in_no_file_is_told_as_not_looked_at(answered: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database has no file that could be compared with what was taken in."""
    place = Query(url_variable="SHOP_URL", watermark="select", select="select")
    monkeypatch.setattr(value_trail, "place_of", lambda *_: place)
    tree = trail(answered.platform, DOMAIN, row_of(answered), verify=True)
    said = named(tree, "synthetic/landing/orders/2024-01-24").detail
    assert said.endswith("not looked at: it lies in the database that SHOP_URL names")
    assert list(tree.faults()) == []


@pytest.mark.parametrize("verify", [False, True])
def test_a_ledger_that_is_damaged_is_a_fault_of_the_routing(answered: TrainedHome, verify: bool) -> None:
    """Wherever the bit is, and where a file is gone; the rest of the trail is there all the same."""
    row = row_of(answered)
    (path,) = Path(answered.platform.ledger).rglob("*.parquet")
    held = path.read_bytes()
    for at in (0.02, 0.3, 0.5, 0.7, 0.95, None):
        if at is None:
            path.unlink()
        else:
            path.write_bytes(held)
            flip_bit(path, at=at)
        tree = trail(answered.platform, DOMAIN, row, verify=verify)
        faults = dict(tree.faults())
        if verify:
            assert set(faults) == {"routing"}
            assert path.name in faults["routing"]
        elif at is None:
            assert "the ledger cannot be read" in faults["routing"]
        assert "synthetic/raw/orders/2024-01-24@1" in [each.label for each in nodes(tree)]


def test_an_entry_that_was_left_out_shows(answered: TrainedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hashes of those after it, where every file is whole."""
    everything = Ledger.entries
    first = everything(Ledger(answered.platform), "synthetic/late_order")[0]
    monkeypatch.setattr(Ledger, "entries", lambda *_: [replace(first, reason="another")])
    ((label, fault),) = trail(answered.platform, DOMAIN, row_of(answered), verify=True).faults()
    assert (label, fault) == ("routing", "entry 1 of the ledger does not follow from those before it")


@pytest.mark.parametrize(
    ("changed", "label", "said"),
    [
        ({"computing": "{"}, "computed by", "no JSON object"),
        ({"computing": "[1]"}, "computed by", "no JSON object"),
        ({"received": None}, "answer asked", "no received"),
        ({"at": None}, "answer asked", "no at"),
        ({"request": None}, "answer asked", "no request"),
        ({"request": "[]"}, "synthetic/courier", "the request cannot be read"),
        ({"request": ""}, "synthetic/courier", "the request cannot be read"),
        ({"manifest": None}, "model synthetic/late_order", "names no manifest"),
        ({"manifest": ""}, "model synthetic/late_order", "names no manifest"),
        ({"manifest": "../../etc"}, "model synthetic/late_order", ""),
        ({"model": None}, "answer asked", "no model"),
        ({"plan": "x"}, "routing", "no entry"),
        ({"features": [None, 1.0]}, "", ""),
        ({"features": None, "received": None, "source": "cached"}, "answer asked", "no received"),
        ({"features": None, "request": None, "source": "cached"}, "answer asked", "no request"),
        ({"views": None}, "", ""),
        ({"views": [None]}, "", ""),
        ({"views": [dict.fromkeys(("view", "version", "revision", "status", "value_revision", "event_time"))]}, "", ""),
        (dict.fromkeys(schema), "answer None", "no model, no manifest"),
    ],
)
def test_an_odd_row_has_a_trail(answered: TrainedHome, changed: dict[str, Any], label: str, said: str) -> None:
    """As far as it leads, with what is wrong named; it never raises."""
    row = {**row_of(answered), "digest": None, **changed}
    faults = dict(trail(answered.platform, DOMAIN, row, verify=True).faults())
    assert not label or any(each.startswith(label) and said in fault for each, fault in faults.items()), faults


def test_a_row_that_was_altered_is_named(answered: TrainedHome) -> None:
    """By its digest, at the very top."""
    row = {**row_of(answered), "probability": 0.123}
    ((label, fault),) = trail(answered.platform, DOMAIN, row).faults()
    assert (label, "digest" in fault) == ("answer asked", True)


def test_a_bundle_that_is_gone_leaves_the_rest_of_the_trail(answered: TrainedHome) -> None:
    """The model's node says so; the values are followed by the domain as it stands."""
    (answered.platform.bundles / answered.entry.to_manifest / "model.ubj").unlink()
    tree = trail(answered.platform, DOMAIN, row_of(answered), verify=True)
    ((label, fault),) = tree.faults()
    assert (label.startswith("model "), "model.ubj" in fault) == (True, True)
    assert "synthetic/raw/orders/2024-01-24@1" in [each.label for each in nodes(tree)]


def test_a_revision_that_was_removed_is_told_by_its_tombstone(
    answered: TrainedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is gone without, as that."""
    from mlplatform.features.stage import Stage

    everything = Stage.revisions

    def without(self: Stage, partitions: Any = None) -> Any:
        held = everything(self, partitions)
        return [each for each in held if not (self.name.endswith("base/orders") and each.partition == "2024-01-24")]

    monkeypatch.setattr(Stage, "revisions", without)
    faults = dict(trail(answered.platform, DOMAIN, row_of(answered)).faults())
    assert faults == {
        "synthetic/base/orders/2024-01-24@1": "its table does not hold it any more, and no tombstone says why"
    }
    gone = Tombstone(
        kind="revision",
        name="synthetic/base/orders/2024-01-24@1",
        content="",
        rows=1,
        policy="superseded revisions go after 30 days",
        actor="retention",
        removed_at=datetime(2024, 6, 1, tzinfo=UTC),
    )
    bury(answered.platform, DOMAIN, [gone])
    ((_, fault),) = trail(answered.platform, DOMAIN, row_of(answered)).faults()
    assert "removed by policy on 2024-06-01" in fault


def test_an_answer_without_features_has_a_trail_too(answered: TrainedHome) -> None:
    """What was logged of it, and no more."""
    row = {
        **row_of(answered),
        "features": None,
        "source": "rules",
        "reason": "worker lost",
        "digest": None,
        "plan": None,
    }
    tree = trail(answered.platform, DOMAIN, row)
    assert named(tree, "feature vector").detail == "none was computed"
    assert "by rules (worker lost)" in tree.detail
    assert "no plan" in named(tree, "routing").detail


def test_a_repeated_answer_goes_back_to_the_one_that_it_repeats(answered: TrainedHome) -> None:
    """Nothing was computed for it, so that its values are those of the earlier answer."""
    row = row_of(answered)
    later = row["received"] + timedelta(seconds=5)
    repeated = {**row, "request_id": "again", "features": None, "scores": None, "received": later, "digest": None}
    tree = trail(answered.platform, DOMAIN, repeated)
    features = named(tree, "feature vector")
    assert features.detail == "that of the answer which this one repeats"
    assert [each.label for each in features.children] == ["request", "answer asked"]
    assert "synthetic/raw/orders/2024-01-24@1" in [each.label for each in nodes(tree)]


def _alter(home: TrainedHome, stage: str, day: str) -> None:
    """Write the file of a revision again with one value that is another."""
    folder = home.platform.home / "tables" / "synthetic" / stage
    (path,) = (each for each in folder.rglob("*.parquet") if day in str(each))
    held = pl.read_parquet(path)
    number = next(name for name, dtype in held.schema.items() if dtype.is_numeric() and not name.startswith("_"))
    held.with_columns(pl.col(number) + (pl.int_range(pl.len()) == 0).cast(held.schema[number])).write_parquet(path)
