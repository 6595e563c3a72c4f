"""Outcomes of a day: labels joined by the case, judged when they can be in, and what is found in them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.removal import remove_revisions
from mlplatform.features.tables import Tables, day_range
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import findings_of, judgements
from mlplatform.monitoring.outcomes import outcomes
from mlplatform.monitoring.outcomes.coverage import Coverage, coverage_finding
from mlplatform.monitoring.outcomes.labels import look_through
from mlplatform.monitoring.outcomes.latest import latest_outcomes
from mlplatform.monitoring.outcomes.outcomes import DayOutcomes, due, judgeable
from mlplatform.monitoring.outcomes.tables import figures_table, labels_table
from mlplatform.training import metrics
from mlplatform_tests.fakes.judged_answers import MANIFEST, JudgedShop, best_scores, labels_of, orders_of

DAY, NEXT, JUDGED = "2024-02-05", "2024-02-06", "2024-02-07"
LATE, MINUTES, SPEED = DOMAIN.models


@pytest.fixture
def shop(tmp_path: Path) -> JudgedShop:
    """One of its own for each test."""
    return JudgedShop(tmp_path / "home")


def figure(found: DayOutcomes, metric: str, *, source: str = "model", arm: str = "champion", model: str = "") -> float:
    """A figure of all answers."""
    of = found.figures.filter(
        pl.col("metric") == metric, pl.col("segment") == "", pl.col("source") == source, pl.col("arm") == arm
    )
    value: float = (of.filter(pl.col("model") == model) if model else of)["figure"].item()
    return value


def rules(findings: tuple[Finding, ...] | list[Finding]) -> set[str]:
    """What was found."""
    return {each.rule for each in findings}


def judge(shop: JudgedShop, day: str = DAY) -> DayOutcomes:
    """Judge a day two days later, at one in the night."""
    later = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=2)
    shop.at(later.date().isoformat(), 1)
    return shop.outcomes(day)


def test_a_quiet_day(shop: JudgedShop) -> None:
    """Every answer has its label, the figures are those of the rows, and nothing is found."""
    orders = orders_of(DAY)
    shop.evaluate(LATE)
    shop.answer(orders, LATE)
    shop.land(DAY, NEXT)
    found = judge(shop)
    (counts,) = found.models
    assert (counts.mature, counts.answers, counts.labelled) == (True, orders.height, orders.height)
    assert (counts.coverage, counts.coverage_of_traffic, counts.contradicted, counts.refused) == (1.0, 1.0, 0, 0)
    labels, scores = labels_of(LATE, orders).to_numpy(), best_scores(LATE, orders)
    for metric in ("log_loss", "brier", "accuracy"):
        assert figure(found, metric) == pytest.approx(metrics.value(metric, labels, scores))
    assert figure(found, "auc") == pytest.approx(metrics.value("auc", labels, scores), abs=2e-3)
    assert figure(found, "association") == pytest.approx(2 * metrics.value("auc", labels, scores) - 1)
    assert figure(found, "bias") == pytest.approx(float((scores - labels).mean()))
    assert figure(found, "business:late_orders_announced") == pytest.approx((scores[labels == 1] >= 0.5).mean())
    held = found.figures.filter(pl.col("bound").is_not_null(), pl.col("segment") == "")
    assert set(held["metric"]) == {"log_loss", "bias", "association"}
    assert found.findings == () and found.unmeasured == {}
    assert found.estimates.filter(pl.col("metric") == "log_loss")["error"].abs().item() < 0.1
    # It is judged: that nothing was found is kept.
    (kept,) = judgements(shop.platform, DOMAIN)
    assert (kept.day, kept.findings) == (DAY, ())


def test_labels_are_kept_by_request(shop: JudgedShop) -> None:
    """With the day, when the label was known and the revision of the facts that brought it."""
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    shop.answer(orders.head(3), LATE, prefix="again-")
    shop.land(DAY, NEXT)
    judge(shop)
    kept = labels_table(shop.platform, DOMAIN).read([DAY])
    assert kept.height == orders.height + 3
    first = kept.filter(pl.col("request_id").str.ends_with(f"o{orders['order_id'][0]}"))
    assert first["request_id"].str.starts_with("again-").sum() == 1 and first["label"].n_unique() == 1
    assert set(kept["known_at"]) == {datetime(2024, 2, 6, 1, tzinfo=UTC)}
    assert set(kept["fact_partition"]) == {DAY} and set(kept["fact_revision"]) == {1} and set(kept["day"]) == {DAY}


def test_a_harmful_shift_of_labels_is_found_on_its_day(shop: JudgedShop) -> None:
    """The slow couriers are the fast ones: log loss, calibration or segments, in words with figures."""
    shop.evaluate(LATE)
    shop.answer(orders_of(DAY), LATE)
    shop.land(DAY, NEXT, orders={DAY: orders_of(DAY, couriers_turned=True)})
    found = judge(shop)
    (worse,) = [each for each in found.findings if each.rule == "log_loss"]
    assert worse.subject == "synthetic/late_order" and worse.manifest == MANIFEST and worse.layer == "outcomes"
    assert worse.figures["value"] > worse.figures["bound"] > worse.figures["expected"]
    assert "against" in worse.summary and "train again" in worse.summary
    assert findings_of(shop.platform, DOMAIN) == list(found.findings)


def test_a_harmed_segment_is_found(shop: JudgedShop) -> None:
    """One district is scored the other way round; the others are as before."""
    shop.evaluate(LATE)
    days = day_range("2024-02-01", DAY)
    for day in days:
        orders = orders_of(day)
        scores = best_scores(LATE, orders)
        turned = np.where((orders["district"] == "hill").to_numpy(), 1 - scores, scores)
        shop.answer(orders, LATE, scores=turned)
    shop.land(*days, NEXT)
    for day in days:
        found = judge(shop, day)
    (harmed,) = [each for each in found.findings if each.rule == "segment_harm"]
    assert "district hill did worse than the other answers" in harmed.summary
    assert "north" not in harmed.summary


def test_a_day_is_not_judged_before_its_labels_can_be_in(shop: JudgedShop) -> None:
    """It is shown with what is in and with the bias that early labels had; not even that nothing is wrong is said."""
    shop.evaluate(LATE)
    for day, seed in (("2024-02-03", 3), ("2024-02-04", 4)):
        shop.answer(orders_of(day, seed=seed), LATE)
        shop.land(day, orders={day: orders_of(day, seed=seed).filter(pl.col("items") < 5)})
        # The rest is reported a day later.
        shop.at("2024-02-05", 0, 30)
        shop.send(day, orders_of(day, seed=seed))
    judge(shop, "2024-02-03")
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    shop.at(NEXT, 0, 10)
    assert judgeable(shop.platform, DOMAIN).keys() == {"2024-02-03"}
    found = shop.outcomes(DAY)
    (counts,) = found.models
    assert (counts.mature, counts.labelled, counts.pending) == (False, 0, orders.height)
    assert counts.mature_at == datetime(2024, 2, 7, 1, tzinfo=UTC)
    assert found.findings == () and {each.day for each in judgements(shop.platform, DOMAIN)} == {"2024-02-03"}
    shop.land(DAY)
    shop.at(NEXT, 12)
    (counts,) = shop.outcomes(DAY).models
    assert counts.early is not None and counts.early.days == 1 and 0.4 < counts.early.share < 0.9
    assert counts.early.bias != 0
    assert judge(shop).models[0].mature


def test_labels_that_do_not_come_are_found(shop: JudgedShop) -> None:
    """Nothing lands any more: when all labels were due, that is what is wrong."""
    shop.evaluate(LATE)
    shop.answer(orders_of(DAY), LATE)
    found = judge(shop)
    assert found.models[0].coverage == 0.0 and found.figures.is_empty()
    (lacking,) = found.findings
    assert lacking.rule == "label_coverage" and "Look whether deliveries has landed" in lacking.summary


def test_a_drop_of_label_coverage_is_found_against_earlier_days(shop: JudgedShop) -> None:
    """Half of the labels would do for a first day, but not after days that had all."""
    days = day_range("2024-02-01", DAY)
    for day in days:
        shop.answer(orders_of(day), LATE)
    shop.land(*days, NEXT, orders={DAY: orders_of(DAY).head(250)})
    for day in days:
        found = judge(shop, day)
        assert rules(found.findings) == ({"label_coverage"} if day == DAY else set())
    assert found.models[0].pending == orders_of(DAY).height - 250


def test_a_day_of_cancelled_cases_is_no_lack_of_labels() -> None:
    """A fact that says that there is no label has come; more than half of the usual labels gone is another matter."""
    usual = [Coverage(come=500, labelled=490, answers=500)] * 10

    def found(come: int, labelled: int) -> str:
        now = Coverage(come=come, labelled=labelled, answers=500)
        lacking = coverage_finding(DOMAIN, LATE, DAY, now, usual, manifest=MANIFEST)
        return lacking.summary if lacking else ""

    assert found(500, 385) == ""
    assert "have their fact, though all are due" in found(385, 385)
    assert "have a label, though their facts have come (bound 49.0%" in found(500, 240)


def test_one_label_and_one_class(shop: JudgedShop) -> None:
    """What cannot be computed is missing, and nothing is judged from so little."""
    shop.evaluate(LATE)
    orders = orders_of(DAY)
    shop.answer(orders.head(1), LATE)
    shop.land(DAY, NEXT)
    found = judge(shop)
    assert found.models[0].labelled == 1 and found.findings == ()
    assert found.figures.filter(pl.col("metric") == "auc")["figure"].to_list() == [None]
    assert figure(found, "log_loss") > 0
    never_late = orders.filter(labels_of(LATE, orders) == 0).filter(pl.col("order_id") != orders["order_id"][0])
    shop.answer(never_late, LATE)
    found = judge(shop)
    assert found.figures.filter(pl.col("metric") == "auc", pl.col("segment") == "")["rows"].item() > 200
    assert "business:late_orders_announced" not in set(found.figures.filter(pl.col("rows") > 50)["metric"])


def test_contradicting_labels(shop: JudgedShop) -> None:
    """The newest fact by event time counts, and the conflict is counted and kept."""
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    twice = orders.filter(labels_of(LATE, orders) == 0).head(7)
    # Reported again on the next day, and late now.
    later = twice.with_columns(
        delivered_at=pl.col("ordered_at") + timedelta(minutes=90),
        reported_at=pl.lit(datetime(2024, 2, 6, 5, tzinfo=UTC)),
    )
    same = orders.filter(labels_of(LATE, orders) == 1).head(4).with_columns(reported_at=later["reported_at"][0])
    shop.land(DAY, NEXT, orders={NEXT: pl.concat([later, same])})
    found = judge(shop)
    assert found.models[0].contradicted == 7
    kept = found.labels.filter("contradicted")
    assert kept.height == 7 and set(kept["label"]) == {1.0} and set(kept["fact_partition"]) == {NEXT}
    assert found.models[0].labelled == orders.height


def test_an_older_fact_that_is_known_later_does_not_count(shop: JudgedShop) -> None:
    """The event decides, not the day on which somebody corrects the one before."""
    orders = orders_of(DAY)
    shop.answer(orders, MINUTES)
    one = orders.head(1)

    def took(minutes: int, reported: datetime) -> pl.DataFrame:
        delivered = pl.col("ordered_at") + timedelta(minutes=minutes)
        return one.with_columns(delivered_at=delivered, reported_at=pl.lit(reported))

    shop.land(DAY, NEXT, orders={NEXT: took(90, datetime(2024, 2, 6, 5, tzinfo=UTC))})
    shop.at("2024-02-10")
    shop.send(DAY, pl.concat([orders.slice(1), took(25, one["reported_at"][0])]))
    told = shop.outcomes(DAY).labels.filter("contradicted")
    assert told.select("label", "fact_partition").rows() == [(90.0, NEXT)]


def test_labels_of_cases_that_nobody_asked_about(shop: JudgedShop) -> None:
    """They are no error; how much of the traffic was asked about is shown."""
    orders = orders_of(DAY)
    shop.answer(orders.head(100), LATE)
    shop.land(DAY, NEXT)
    found = judge(shop)
    (counts,) = found.models
    assert (counts.facts, counts.facts_asked) == (orders.height, 100)
    assert counts.coverage == 1.0 and found.findings == ()


def test_a_label_that_is_ten_months_late(shop: JudgedShop) -> None:
    """It is taken when it comes, whichever partition it comes in: the day is judged again, and no other."""
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    lost = orders.head(1)
    shop.land(DAY, NEXT, orders={DAY: orders.slice(1)})
    before = judge(shop)
    assert before.models[0].pending == 1
    assert due(shop.platform, DOMAIN) == {DAY: before.made_from}
    late_day = "2024-12-10"
    found_at = datetime(2024, 12, 10, 9, tzinfo=UTC)
    shop.answer(orders_of("2024-12-09"), LATE)
    shop.land(
        late_day,
        orders={late_day: lost.with_columns(delivered_at=pl.lit(found_at), reported_at=pl.lit(found_at))},
    )
    shop.at("2024-12-11", 2)
    shop.outcomes("2024-12-09")
    assert due(shop.platform, DOMAIN)[DAY] != before.made_from
    again = shop.outcomes(DAY)
    assert again.models[0].labelled == orders.height and again.models[0].pending == 0
    assert due(shop.platform, DOMAIN)[DAY] == again.made_from
    assert again.labels.filter(pl.col("fact_partition") == late_day)["known_at"].item() > found_at


def test_labels_that_land_while_a_day_is_judged_have_it_judged_again(
    shop: JudgedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was judged from names the revisions that were read, and no newer ones."""
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    shop.land(DAY, NEXT, orders={DAY: orders.head(300)})
    shop.at(JUDGED, 1)

    def land_meanwhile(*given: object, **named: object) -> int:
        shop.send(DAY, orders)
        return look_through(*given, **named)  # type: ignore[arg-type]  # handed on

    with monkeypatch.context() as patched:
        patched.setattr(outcomes, "look_through", land_meanwhile)
        found = shop.outcomes(DAY)
    assert found.models[0].labelled == 300
    assert due(shop.platform, DOMAIN)[DAY] != found.made_from
    again = shop.outcomes(DAY)
    assert again.models[0].labelled == orders.height
    assert due(shop.platform, DOMAIN)[DAY] == again.made_from


def test_corrected_facts_have_the_day_judged_again(shop: JudgedShop) -> None:
    """As a new revision; what was believed before stays, and a label that was not corrected keeps its date."""
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    shop.land(DAY, NEXT)
    before = judge(shop)
    shop.at("2024-02-20")
    wrong = orders.filter(labels_of(LATE, orders) == 0).head(5)
    right = wrong.with_columns(delivered_at=pl.col("ordered_at") + timedelta(minutes=100))
    shop.send(DAY, pl.concat([orders.join(wrong, on="order_id", how="anti"), right]))
    assert due(shop.platform, DOMAIN)[DAY] != before.made_from
    after = shop.outcomes(DAY)
    assert figure(after, "log_loss") > figure(before, "log_loss")
    store = figures_table(shop.platform, DOMAIN)
    assert [each.number for each in store.revisions([DAY])] == [1, 2]
    first = store.read(numbers={DAY: 1}).filter(pl.col("metric") == "log_loss", pl.col("segment") == "")
    assert first["figure"].item() == figure(before, "log_loss")
    dates = after.labels.group_by("fact_revision").len().sort("fact_revision")
    assert dates.rows() == [(1, orders.height - 5), (2, 5)]
    assert set(after.labels.filter(pl.col("fact_revision") == 1)["known_at"]) == {datetime(2024, 2, 6, 1, tzinfo=UTC)}
    assert after.models[0].contradicted == 0


def test_nothing_new_is_no_new_revision(shop: JudgedShop) -> None:
    """Judged twice from the same, a day is the same."""
    shop.answer(orders_of(DAY), LATE)
    shop.land(DAY, NEXT)
    judge(shop)
    shop.outcomes(DAY)
    assert [each.number for each in figures_table(shop.platform, DOMAIN).revisions([DAY])] == [1]
    assert [each.number for each in labels_table(shop.platform, DOMAIN).revisions([DAY])] == [1]


def test_requests_that_the_domain_no_longer_reads(shop: JudgedShop) -> None:
    """They are counted, and the others are judged; what is written otherwise and means the same is read."""
    orders = orders_of(DAY)
    shop.answer(orders.slice(3), LATE)
    odd = orders.head(3)
    number = odd["order_id"][0]
    bodies = [b'{"order": 7}', b"no json", b'{"order_id": %d.0, "district": "hill", "x": {"order_id": 1}}' % number]
    for place, body in enumerate(bodies):
        shop.answer(odd.head(1), LATE, prefix=f"p{place}-", request=body)
    shop.land(DAY, NEXT)
    found = judge(shop)
    (counts,) = found.models
    assert (counts.answers, counts.refused, counts.labelled) == (orders.height, 2, orders.height - 2)
    assert found.labels.filter(pl.col("request_id") == f"p2-o{number}").height == 1


def test_three_models_of_three_tasks_and_one_that_is_gone(shop: JudgedShop) -> None:
    """Each by its own metrics, against its own evaluation; the other is named."""
    orders = orders_of(DAY)
    manifests = [(LATE, MANIFEST), (MINUTES, "6" * 64), (SPEED, "7" * 64)]
    for model, manifest in manifests:
        shop.evaluate(model, manifest)
        shop.answer(orders, model, manifest=manifest)
    shop.answer(orders.head(9), replace(LATE, name="gone"), manifest="8" * 64)
    shop.land(DAY, NEXT)
    found = judge(shop)
    assert [each.model for each in found.models] == ["late_order", "minutes_to_door", "speed"]
    assert found.findings == () and found.unmeasured == {} and found.undeclared == {"gone": 9}
    for model, metric in ((MINUTES, "mae"), (MINUTES, "rmse"), (SPEED, "log_loss"), (SPEED, "accuracy")):
        exact = metrics.value(metric, labels_of(model, orders).to_numpy(), best_scores(model, orders))
        assert figure(found, metric, model=model.name) == pytest.approx(exact)
    assert figure(found, "business:promises_kept", model="minutes_to_door") > 0.7
    assert figure(found, "business:slow_called_quick", model="speed") < 0.05
    shop.send(DAY, orders_of(DAY, couriers_turned=True))
    harmed = shop.outcomes(DAY).findings
    assert {(each.rule, each.subject) for each in harmed} >= {
        ("mae", "synthetic/minutes_to_door"),
        ("log_loss", "synthetic/speed"),
    }


def test_only_the_models_own_answers_count_for_it(shop: JudgedShop) -> None:
    """Fallbacks are shown by their source, shadows by their arm; neither is judged."""
    shop.evaluate(LATE)
    shop.evaluate(LATE, "6" * 64)
    orders = orders_of(DAY)
    shop.answer(orders.head(200), LATE)
    nonsense = 1 - best_scores(LATE, orders)
    shop.answer(orders.slice(200), LATE, scores=nonsense[200:], source="simple_model")
    shop.answer(orders, LATE, scores=nonsense, arm="shadow", manifest="6" * 64)
    shop.answer(orders.head(20), LATE, prefix="none-", source="rules", silent=True)
    shop.land(DAY, NEXT)
    found = judge(shop)
    good = figure(found, "log_loss")
    assert figure(found, "log_loss", source="simple_model") > 2 * good
    assert figure(found, "log_loss", arm="shadow") > 2 * good
    assert "rules" not in set(found.figures["source"])
    assert found.models[0].answers == orders.height + 20
    assert found.findings == () and found.unmeasured == {}


def test_a_model_without_a_known_evaluation_is_shown(shop: JudgedShop) -> None:
    """And it is said why it is not judged."""
    shop.answer(orders_of(DAY), LATE)
    shop.land(DAY, NEXT)
    found = judge(shop)
    assert figure(found, "log_loss") > 0 and found.unmeasured.keys() == {MANIFEST} and found.findings == ()


def test_windows_are_made_of_mature_days(shop: JudgedShop) -> None:
    """A week's figure is that of its rows together, with an interval over its days."""
    days = day_range("2024-01-29", DAY)
    for day in days:
        shop.answer(orders_of(day), LATE)
    shop.land(*days, NEXT)
    for day in days:
        found = judge(shop, day)
    every = pl.concat([orders_of(day) for day in days[1:]])
    labels, scores = labels_of(LATE, every).to_numpy(), best_scores(LATE, every)
    week = {row["metric"]: row for row in found.windows[7].filter(pl.col("segment") == "").iter_rows(named=True)}
    assert week["log_loss"]["days"] == 7 and week["log_loss"]["rows"] == every.height
    assert week["log_loss"]["figure"] == pytest.approx(metrics.value("log_loss", labels, scores))
    assert week["auc"]["figure"] == pytest.approx(metrics.value("auc", labels, scores), abs=1e-3)
    assert week["ece"]["figure"] == pytest.approx(metrics.value("ece", labels, scores), abs=0.01)
    assert week["log_loss"]["low"] < week["log_loss"]["figure"] < week["log_loss"]["high"]
    assert found.windows[28].filter(pl.col("metric") == "log_loss")["days"].max() == 8
    told = latest_outcomes(shop.platform, DOMAIN, until=DAY)
    assert [each.day for each in told] == days and {each.metric for each in told} == {"log_loss"}
    assert told[-1].figure.point == pytest.approx(figure(found, "log_loss")) and told[-1].mature


def test_a_day_without_answers(shop: JudgedShop) -> None:
    """There is nothing to judge, and nothing fails."""
    shop.land(DAY, NEXT)
    found = judge(shop)
    assert (found.answers, found.judged, found.findings) == (0, False, ()) and due(shop.platform, DOMAIN) == {}
    assert latest_outcomes(shop.platform, DOMAIN, until=DAY) == []


@pytest.mark.parametrize("judged_before", [True, False])
def test_a_removed_revision_of_the_facts_makes_no_label_later(shop: JudgedShop, judged_before: bool) -> None:
    """A label keeps the date under which it was kept; one that was not kept before has none."""
    orders = orders_of(DAY)
    shop.answer(orders, LATE)
    shop.land(DAY, NEXT)
    if judged_before:
        judge(shop)
    # Twice, so that the second revision is superseded, too, and of no need.
    for at, number in (("2024-02-20", 3), ("2024-02-21", 5)):
        shop.at(at)
        wrong = orders.filter(labels_of(LATE, orders) == 0).head(number)
        right = wrong.with_columns(delivered_at=pl.col("ordered_at") + timedelta(minutes=100))
        shop.send(DAY, pl.concat([orders.join(wrong, on="order_id", how="anti"), right]))
    facts = Tables(shop.platform, DOMAIN).facts(DOMAIN.requests.facts)
    assert [each.number for each in facts.revisions([DAY])] == [1, 2, 3]
    remove_revisions(facts, {(DAY, 1): "gone"})
    found = shop.outcomes(DAY).labels
    dates = dict(found.group_by("fact_revision").agg(pl.col("known_at").first(), pl.len()).rows_by_key("fact_revision"))
    known = datetime(2024, 2, 6, 1, tzinfo=UTC)
    if judged_before:
        assert dates == {
            1: [(known, orders.height - 5)], None: [(None, 3)], 3: [(datetime(2024, 2, 21, tzinfo=UTC), 2)]
        }  # fmt: skip
    else:
        assert dates == {None: [(None, orders.height - 2)], 3: [(datetime(2024, 2, 21, tzinfo=UTC), 2)]}
