"""How good the flight model is on half a year that it never saw, and what a daily publication costs it.

The year is landed and computed by the platform's own stages (kept under `var/bench/accuracy`, so a second run is
quick), `late_arrival` is trained as of 1 July 2013 and stays frozen, and every request from then on is scored with the
features that the publishing schedule would have served. Beside it stand a constant, the simple model, and the same
model on features computed up to the moment of each request, once on the views it reads and once with the views of
origin and weather that only pay when they are fresh: the reference for what the schedule costs.
Some of the flights are then asked over HTTP, with a snapshot of each day, and must get the offline answer in every bit.

Nothing is promoted: a second run judges its candidate as the first model of all, as the first run did.
"""

import http.client
import json
import random
import socket
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from bench.aims import aim, step
from mlplatform.domain.model import ModelSpec, XGBoostSettings
from mlplatform.domain.view import FeatureView
from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.domains.flight_delay.features import DELAY_CEILING_MINUTES, DELAY_FLOOR_MINUTES, WINDOW_DAYS
from mlplatform.features.historical import historical_features
from mlplatform.features.landing.landing import land_sample, landed
from mlplatform.features.materialization import pending, raise_failures, run
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.features.view import compute_view, fit_values, model_inputs
from mlplatform.operations import servers
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bento import build_bento
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import Candidate, bundle_of, make_candidate
from mlplatform.rollout.judge import judge_candidate
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.calibrate import fit_calibration
from mlplatform.training.dataset import build_training_set, load_rows, save_training_set
from mlplatform.training.examples import Examples, examples
from mlplatform.training.fit import fit
from mlplatform.training.metrics import bootstrap, interval, replicates, value
from mlplatform.training.recipe import Recipe, recipe, save_recipe

HOME = Path("var/bench/accuracy")
AS_OF = "2013-07-01"
MODEL = DOMAIN.model("late_arrival")
FRESH = replace(MODEL, views=(*MODEL.views, "origin", "weather"))
"""The model that features of the moment would allow. Published daily, these two views cost more than they give."""

WINDOWS = ("carrier", "route", "destination", "tail_number", "origin")

SERVED_DAYS = (date(2013, 7, 2), date(2013, 8, 14), date(2013, 9, 30), date(2013, 11, 3), date(2013, 12, 24))
"""Over all six months; 3 November is the night of the clock change."""

SERVED_PER_DAY = 60
CHECKED_WINDOWS = 400

LOGISTIC = 0.5099
"""Log loss of a well-made logistic regression on the same rows: one-hot codes, all windows, every row to July."""

LEAK = 0.78
"""AUC from which on the outcome has leaked: the gate's own limit."""

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Compute, train, score, serve, and print the table and the aims."""
    platform = Platform(home=HOME.absolute())
    days = day_range(DOMAIN.start.isoformat(), str(DOMAIN.end))
    with step(f"land and compute {len(days)} days"):
        compute(platform, days)
    with step(f"train {DOMAIN.name}/{MODEL.name} as of {AS_OF}"):
        made, candidate = _train(platform)
    tables = Tables(platform, DOMAIN)
    facts = tables.facts(DOMAIN.requests.facts).read().sort("event_time")
    requests = _requests(facts, made.cut_off)
    with step(f"score {requests.height:,} requests"):
        bundle = bundle_of(platform, candidate.manifest)
        daily = historical_features(platform, DOMAIN, MODEL, requests)
        served = bundle.scores(bundle.features(requests, daily))
    with step("the same model on features of the moment"):
        cut = examples(DOMAIN, MODEL, made, load_rows(platform.training(DOMAIN.name, MODEL.name, made.key)))
        reports = tables.facts("weather").read()
        of_training = _current(facts, reports, cut.requests, cut.view_values)
        of_requests = _current(facts, reports, requests, daily)
        checked = _check_windows(facts, reports, requests, of_requests)
        rivals = {
            "constant": np.full(requests.height, cut.labels[cut.parts.train].mean()),
            "simple model, daily": bundle.simple.predict(bundle.features(requests, daily)),
            "XGBoost, daily: the bundle": served,
            "XGBoost, daily, all rows to July": _refitted(MODEL, cut, cut.view_values, candidate, requests, daily),
            "XGBoost, of the moment": _as_trained(cut, of_training, candidate, bundle, requests, of_requests),
            "… all rows to July": _refitted(MODEL, cut, of_training, candidate, requests, of_requests),
            "… and origin and weather": _refitted(FRESH, cut, of_training, candidate, requests, of_requests),
        }
    labels = requests["label"].to_numpy().astype(np.float64)
    losses, areas = _table(rivals, labels, requests["at"])
    with step("serve some of them"):
        equal, asked = _serve(platform, bundle, requests, served)
    alike = losses["XGBoost, daily: the bundle"] - losses["XGBoost, of the moment"]
    whole = losses["XGBoost, daily, all rows to July"] - losses["… and origin and weather"]
    print(f"\n{checked} values of the moment equal those of the declared views.")
    print(
        f"Publishing once a day costs {alike:.4f} of log loss against the same features of the moment, trained alike,"
    )
    print(f"and {whole:.4f} against all that fresh features allow, where both learn from every row to July.\n")
    _aim("accuracy.log_loss.daily", losses["XGBoost, daily: the bundle"], "<=", LOGISTIC)
    _aim("accuracy.log_loss.below_simple", losses["XGBoost, daily: the bundle"], "<", losses["simple model, daily"])
    _aim("accuracy.auc.below_leak", areas["XGBoost, daily: the bundle"], "<", LEAK)
    _aim("accuracy.served_equals_offline", equal, ">=", asked)


def compute(platform: Platform, days: list[str]) -> None:
    """Land the year and bring every stage up to date; what is up to date is left alone."""
    if any(list(landed(platform, DOMAIN, source).days) != days for source in DOMAIN.sources):
        land_sample(platform, DOMAIN, date.fromisoformat(days[0]), date.fromisoformat(days[-1]))
    for stage in stages:
        stale = pending(platform, DOMAIN, stage, days)
        if stale:
            raise_failures(run(platform, DOMAIN, stage, stale, run_id="bench-accuracy"))


def _train(platform: Platform) -> tuple[Recipe, Candidate]:
    made = recipe(platform, DOMAIN, MODEL, as_of=AS_OF)
    folder = platform.training(DOMAIN.name, MODEL.name, made.key)
    save_recipe(folder, made)
    if not (folder / "training_set.json").exists():
        save_training_set(folder, build_training_set(platform, DOMAIN, MODEL, made), made)
    candidate = make_candidate(platform, DOMAIN, MODEL, made)
    _, decision = judge_candidate(platform, DOMAIN, MODEL, made)
    print(f"  rows: {dict(candidate.rows)}; training: {candidate.windows['training']}")
    print(f"  the gate says {decision.outcome}{'; '.join(['', *decision.reasons])}")
    return made, candidate


def _requests(facts: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Requests with a label from the moment on at which the model could first be served."""
    asked = DOMAIN.requests.of_facts(facts).with_columns(label=facts.select(MODEL.label.value()).to_series())
    later = asked.filter(pl.col("at") >= since, pl.col("label").is_not_null())
    return later.sort("at", *DOMAIN.requests.identity)


def _current(
    facts: pl.DataFrame, reports: pl.DataFrame, requests: pl.DataFrame, published: pl.DataFrame
) -> pl.DataFrame:
    """View values of the moment: windows that end at each request; the register does not change within a day.

    The sums of a window are differences of running sums, since calling the view for each of 170,000 moments would take
    hours. `_check_windows` compares some of them with the view itself.
    """
    asked = requests.with_row_index("_row")
    register = published.select(feature.name for feature in _view("aircraft").features)
    parts = [register, _weather(reports, requests), *(windows(facts, asked, _view(name)) for name in WINDOWS)]
    return pl.concat(parts, how="horizontal")


def _weather(reports: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    """The weather view of each moment, computed once an hour: between two reports nothing changes."""
    view = _view("weather")
    # All reports become known at a quarter past; one of that very moment is not yet looked at.
    moment = (pl.col("at") - pl.duration(minutes=15, microseconds=1)).dt.truncate("1h") + pl.duration(minutes=75)
    asked = requests.select(*view.entity, event_time=moment)
    moments = asked["event_time"].unique().sort()
    computed = pl.concat([compute_view(view, reports, at) for at in moments])
    joined = asked.join(computed, on=[*view.entity, "event_time"], how="left", maintain_order="left")
    return joined.drop(*view.entity, "event_time")


def windows(facts: pl.DataFrame, asked: pl.DataFrame, view: FeatureView) -> pl.DataFrame:
    """What a window view tells of each request's own moment."""
    amounts = {
        "flights": pl.lit(1, pl.Int64),
        "landed": pl.col("late").is_not_null().cast(pl.Int64),
        "late": pl.col("late").cast(pl.Int64).fill_null(0),
        "minutes": pl.col("arrival_delay").clip(DELAY_FLOOR_MINUTES, DELAY_CEILING_MINUTES).cast(pl.Int64).fill_null(0),
        "cancelled": pl.col("cancelled").cast(pl.Int64),
    }
    running = (
        facts.drop_nulls(view.entity)
        .sort("event_time")
        .select(*view.entity, "event_time", *(amount.alias(name) for name, amount in amounts.items()))
        .with_columns(pl.col(*amounts).cum_sum().over(view.entity))
    )

    def before(moment: pl.Expr) -> pl.DataFrame:
        at = asked.select("_row", *view.entity, moment.alias("event_time")).sort("event_time")
        # A fact of that very moment is not before it.
        found = at.join_asof(
            running, on="event_time", by=list(view.entity), allow_exact_matches=False, check_sortedness=False
        )
        return found.sort("_row").select(pl.col(*amounts).fill_null(0))

    now, prefix = before(pl.col("at")), view.features[0].name.partition("_")[0]
    parts = []
    for days in WINDOW_DAYS:
        part = now - before(pl.col("at") - timedelta(days=days))
        parts.append(
            part.select(
                pl.col("flights").cast(pl.Int32).alias(f"{prefix}_flights_{days}d"),
                _share("late", "landed").alias(f"{prefix}_late_share_{days}d"),
                _share("minutes", "landed").alias(f"{prefix}_mean_arrival_delay_{days}d"),
                _share("cancelled", "flights").alias(f"{prefix}_cancelled_share_{days}d"),
            )
        )
    windows = pl.concat(parts, how="horizontal")
    # An entity without any fact has no row in a view, so all its values are null, its counts too.
    return windows.select(pl.when(pl.col(f"{prefix}_flights_{WINDOW_DAYS[-1]}d") > 0).then(pl.all()))


def _share(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole)).cast(pl.Float32)


def _check_windows(facts: pl.DataFrame, reports: pl.DataFrame, requests: pl.DataFrame, current: pl.DataFrame) -> int:
    """Compare values of random requests with what the declared view gives for that moment; how many were compared."""
    drawn = random.Random(1)
    for _ in range(CHECKED_WINDOWS):
        view, row = _view(drawn.choice([*WINDOWS, "weather"])), drawn.randrange(requests.height)
        at = requests["at"][row]
        assert isinstance(at, datetime)
        names = [feature.name for feature in view.features]
        of_view = compute_view(view, reports if view.name == "weather" else facts, at.astimezone(UTC))
        found = requests[row].select(view.entity).join(of_view, on=view.entity, how="left").select(names)
        if not found.equals(current[row].select(names)):
            raise AssertionError(f"{view.name} at {at}: {found.row(0)} is not {current[row].select(names).row(0)}")
    return CHECKED_WINDOWS


def _view(name: str) -> FeatureView:
    view = DOMAIN.view(name)[1]
    assert isinstance(view, FeatureView)
    return view


def _as_trained(
    cut: Examples,
    values: pl.DataFrame,
    candidate: Candidate,
    bundle: Bundle,
    requests: pl.DataFrame,
    asked: pl.DataFrame,
) -> Floats:
    """Scores of a model made as the bundle was made (rows, settings, calibration), from other view values."""
    features = model_inputs(DOMAIN, MODEL, cut.requests, values, bundle.fitted)
    train, calibration = cut.parts.train, cut.parts.calibration
    booster = fit(features[train], cut.labels[train], MODEL, _settings(candidate))
    raw = raw_scores(booster, matrix(features[calibration]))
    fitted = fit_calibration(MODEL, raw, cut.labels[calibration], cut.requests["at"].gather(calibration))
    inputs = model_inputs(DOMAIN, MODEL, requests, asked, bundle.fitted)
    return fitted.calibration.apply(raw_scores(booster, matrix(inputs)))


def _refitted(
    model: ModelSpec,
    cut: Examples,
    values: pl.DataFrame,
    candidate: Candidate,
    requests: pl.DataFrame,
    asked: pl.DataFrame,
) -> Floats:
    """Scores of a model of the same settings that keeps no rows back: all labelled ones after the warm-up."""
    rows = np.flatnonzero((cut.requests["at"] >= cut.parts.windows.training.start).to_numpy())
    known, of_views = cut.requests[rows], values[rows]
    fitted = fit_values(DOMAIN, model, known, of_views)
    booster = fit(model_inputs(DOMAIN, model, known, of_views, fitted), cut.labels[rows], model, _settings(candidate))
    return raw_scores(booster, matrix(model_inputs(DOMAIN, model, requests, asked, fitted)))


def _settings(candidate: Candidate) -> XGBoostSettings:
    return XGBoostSettings(**candidate.settings)


def _table(rivals: dict[str, Floats], labels: Floats, at: pl.Series) -> tuple[dict[str, float], dict[str, float]]:
    """Print log loss (with its 95 % interval over whole days) and AUC; give both."""
    sample = bootstrap(at.dt.epoch("d").to_numpy().astype(np.int64), seed=MODEL.settings.seed)
    days = at.dt.date().n_unique()
    losses, areas = {}, {}
    first, last = (at.dt.date().sort()[end] for end in (0, -1))
    print(f"\n{len(labels):,} requests, {first} to {last}, {labels.mean():.1%} late\n")
    print(f"{'':34}{'log loss':>10}{'95 % interval':>20}{'AUC':>9}")
    for name, scores in rivals.items():
        loss = interval(replicates("log_loss", labels, scores, sample), days)
        losses[name], areas[name] = value("log_loss", labels, scores), value("auc", labels, scores)
        print(f"{name:34}{losses[name]:>10.4f}{f'{loss.low:.4f} to {loss.high:.4f}':>20}{areas[name]:>9.4f}")
    return losses, areas


def _serve(platform: Platform, bundle: Bundle, requests: pl.DataFrame, scores: Floats) -> tuple[int, int]:
    """Ask the Bento about flights of several days, each day from its own snapshot.

    Returns
    -------
    (answers that equal the offline score in every bit and come from the model, answers)
    """
    tag = build_bento(bundle.folder, home=platform.home)
    port = _free_port()
    log = platform.home / "logs" / "bento.log"
    command = servers.bento_command(tag, host="127.0.0.1", port=port)
    numbered = requests.with_columns(_score=pl.Series(scores))
    columns = [*(column.name for column in DOMAIN.requests.columns), "at"]
    equal = asked = 0
    with servers.running([command], servers.bento_environment(platform, clock="request"), log) as (child,):
        servers.wait_until_answering(f"http://127.0.0.1:{port}/livez", child, log, seconds=90)
        for day in SERVED_DAYS:
            publish_values(platform, DOMAIN, as_of=(day - timedelta(days=1)).isoformat())
            drawn = numbered.filter(pl.col("at").dt.date() == day).sample(SERVED_PER_DAY, seed=day.toordinal())
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                for row in drawn.iter_rows(named=True):
                    answer = _ask(connection, {name: row[name] for name in columns})
                    told = (answer["source"], answer["degraded"], answer["probability"])
                    equal += told == ("model", False, row["_score"])
                    asked += 1
    return equal, asked


def _ask(connection: http.client.HTTPConnection, request: dict[str, Any]) -> dict[str, Any]:
    as_json = {name: each.isoformat() if isinstance(each, datetime) else each for name, each in request.items()}
    connection.request("POST", "/predict", json.dumps(as_json), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body: str = response.read().decode()
    if response.status != 200:
        raise AssertionError(f"{response.status}: {body}")
    answer: dict[str, Any] = json.loads(body)
    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _aim(name: str, found: float, word: str, limit: float) -> None:
    forms = ["d" if isinstance(each, int) else ".4f" for each in (found, limit)]
    aim(name, found, word, limit, form=forms[0], limit_form=forms[1])


if __name__ == "__main__":
    main()
