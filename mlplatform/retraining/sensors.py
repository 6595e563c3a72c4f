"""The sensor of a model: what the policy decides -> a record of it, and one run of a new recipe, from rows to Bento.

The decision is kept first. Whoever is killed between it and its run finds it again: a decision to train whose recipe
has no run is launched as it stands, and not taken again. So is one that Dagster was not told of.

One run per recipe: the run key is the recipe's key, which says everything that goes into the model. A run that the gate
has refused is over: the same recipe would be refused again. A run that broke off (killed, a full disk) is tried again
with a growing wait, an hour at most, and never given up; by a new recipe where the code has changed meanwhile.
"""

from collections.abc import Container, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.events import DagsterEventType  # not exported
from dagster._core.storage.tags import MAX_RETRIES_TAG, PARTITION_NAME_TAG

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, MissingPartition, StaleRevision
from mlplatform.features.chain import due
from mlplatform.features.partitions import recipes
from mlplatform.features.sensors import failures_in_a_row, features_job_name, retry_at, unfinished_run
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger, standing
from mlplatform.registry.manifest import SHORT_DIGITS
from mlplatform.retraining.assets import decision_key, materialization
from mlplatform.retraining.decision import decide, refused, to_record
from mlplatform.retraining.events import event_folder, news, prune
from mlplatform.retraining.redis_events import take_from_redis
from mlplatform.retraining.tables import Trail, reached_by_models, record, trail
from mlplatform.settings import settings
from mlplatform.training.recipe import Recipe, load_recipe, require_current, save_recipe

seconds_between_ticks = 30
"""A tick costs a listing of one table, and a training takes minutes: no need to look more often."""

runs_looked_at = 50
"""Newest runs among which the newest recipe is looked for: somebody may promote older ones meanwhile."""


def training_job_name(domain: Domain, model: ModelSpec) -> str:
    """Name of the job from training set to Bento."""
    return f"{domain.name}_{model.name}_training"


def retraining_sensor(domain: Domain, model: ModelSpec) -> dg.SensorDefinition:
    """Enough new rows since the newest recipe of a model -> training, evaluation, gate, promotion, Bento."""
    job = training_job_name(domain, model)

    @dg.sensor(
        name=f"{domain.name}_{model.name}_retraining",
        job_name=job,
        minimum_interval_seconds=seconds_between_ticks,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Trains {domain.name}/{model.name} by a new recipe when its policy says so: "
        f"{model.retraining.new_rows.value:,.0f} new rows ({model.retraining.new_rows.reason}), harmful drift, a loss "
        "that has risen, or age; and keeps every decision, with its reason, in `retrain_decision`.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        if run := unfinished_run(context.instance, platform, job):
            return dg.SensorResult(skip_reason=f"run {run.run_id[:8]} is under way")
        outdated: set[str] = set()
        while newest := newest_recipe(context.instance, platform, domain, model, without=outdated):
            broken = _broken_off(context.instance, job, newest.key)
            if not broken:
                break
            if _is_current(platform, domain, model, newest):
                until = retry_at(broken)
                if until > platform.clock().timestamp():
                    told = f"{datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
                    return dg.SensorResult(
                        skip_reason=f"recipe {newest.key} broke off {_times(len(broken))}; tried again at {told}; "
                        f"`mlplatform train {domain.name}/{model.name}` does it now"
                    )
                # The run before is named: Dagster takes a run key that it has seen for done.
                return _launch(domain, model, newest, run_key=f"{newest.key} after {broken[0].dagster_run.run_id}")
            # It trained nothing and cannot any more: its rows are new still.
            outdated.add(newest.key)
        before = trail(platform, domain, model.name)
        if pending := _without_run(context.instance, platform, domain, model, before):
            return _launch(domain, model, pending, run_key=pending.key, events=_untold(context.instance, before))
        take_from_redis(settings().events, domain, platform.home, platform.clock)
        folder = event_folder(platform.home, domain.name)
        read = news(folder, before.records[0].reached if before.records else {})
        decision = decide(platform, domain, model, newest, before.records[0].trained_at if before.records else None)
        if decision.recipe is not None and (
            unfinished_run(context.instance, platform, features_job_name(domain)) or due(platform, domain).days
        ):
            decision = decision.waits_for("features", "features are being brought up to date first")
        if decision.recipe is not None and (other := _challenger(platform, domain, model)):
            decision = decision.waits_for("rollout", f"the rollout of {other[:SHORT_DIGITS]} comes to its end first")
        made, reason = decision.recipe, decision.verdict.reason
        if made is not None:
            save_recipe(platform.training(domain.name, model.name, made.key), made)
            context.log.info("recipe %s: %s", made.key, reason)
        refusals = refused(platform, domain, read.events)
        at = platform.clock()
        try:
            if kept := to_record(domain, model, decision, before, read=read, refusals=refusals, at=at):
                record(platform, domain, before, kept)
                before = trail(platform, domain, model.name)
                # Here, since a record is kept once a day at least, and seldom more often.
                prune(folder, reached_by_models(platform, domain), at.date())
        except StaleRevision:
            return dg.SensorResult(skip_reason="another daemon has just decided; looked at again with the next tick")
        events = _untold(context.instance, before)
        if made is None:
            return dg.SensorResult(skip_reason=reason, asset_events=events)
        return _launch(domain, model, made, run_key=made.key, events=events)

    return sensor


def _challenger(platform: Platform, domain: Domain, model: ModelSpec) -> str:
    """Digest of what is being rolled out; empty where nothing is. One at a time: a second one would not be promoted."""
    now = standing(Ledger(platform).entries(f"{domain.name}/{model.name}"))
    return now.challenger.to_manifest if now.challenger else ""


def newest_recipe(
    instance: dg.DagsterInstance, platform: Platform, domain: Domain, model: ModelSpec, *, without: Container[str] = ()
) -> Recipe | None:
    """The newest recipe, by its as-of day, that a run was launched for, by whomever.

    Parameters
    ----------
    without : keys of recipes that do not count
    """
    filters = dg.RunsFilter(job_name=training_job_name(domain, model))
    keys = [run.tags.get(PARTITION_NAME_TAG, "") for run in instance.get_runs(filters, limit=runs_looked_at)]
    # Of one day the recipe that was launched last; the newest run stands first, and max() keeps the first of equals.
    newest = max((key for key in keys if key and key not in without), key=lambda key: key[:10], default=None)
    if newest is None:
        return None
    try:
        return load_recipe(platform.training(domain.name, model.name, newest))
    except MissingPartition:
        return None


def _without_run(
    instance: dg.DagsterInstance, platform: Platform, domain: Domain, model: ModelSpec, before: Trail
) -> Recipe | None:
    """The recipe of the last decision, if that was to train, nobody has launched it, and it can still be built."""
    last = before.weighed
    if last is None or not last.recipe:
        return None
    launched = dg.RunsFilter(job_name=training_job_name(domain, model), tags={PARTITION_NAME_TAG: last.recipe})
    if instance.get_runs_count(launched):
        return None
    try:
        made = load_recipe(platform.training(domain.name, model.name, last.recipe))
    except MissingPartition:
        return None
    return made if _is_current(platform, domain, model, made) else None


def _untold(instance: dg.DagsterInstance, kept: Trail) -> list[dg.AssetMaterialization]:
    """The newest records that Dagster was not told of, oldest first."""
    if not kept.records:
        return []
    key = decision_key(kept.records[0].model)
    last = instance.get_latest_materialization_event(key)
    newest = kept.records[0].name
    if last is not None and last.asset_materialization is not None:
        if _record_of(last.asset_materialization) == newest:
            return []
        shown = instance.fetch_materializations(key, limit=2 * len(kept.records)).records
        told = {_record_of(each.asset_materialization) for each in shown if each.asset_materialization}
    else:
        told = set()
    return [materialization(each) for each in reversed(kept.records) if each.name not in told]


def _record_of(told: dg.AssetMaterialization) -> str:
    """The record that a materialisation shows; empty: somebody has reported it by hand, as the UI offers."""
    named = told.metadata.get("record")
    return "" if named is None else str(named.value)


def _launch(
    domain: Domain,
    model: ModelSpec,
    made: Recipe,
    *,
    run_key: str,
    events: Sequence[dg.AssetMaterialization] = (),
) -> dg.SensorResult:
    return dg.SensorResult(
        asset_events=events,
        run_requests=[
            dg.RunRequest(
                run_key=run_key,
                job_name=training_job_name(domain, model),
                partition_key=made.key,
                tags={MAX_RETRIES_TAG: "0"},  # This sensor is what tries again.
            )
        ],
        dynamic_partitions_requests=[recipes(domain, model).build_add_request([made.key])],
    )


def _is_current(platform: Platform, domain: Domain, model: ModelSpec, made: Recipe) -> bool:
    """Whether a training by the recipe would not be refused."""
    try:
        require_current(platform, domain, model, made)
    except DataError:
        return False
    return True


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _broken_off(instance: dg.DagsterInstance, job: str, key: str) -> list[dg.RunRecord]:
    """The failed runs of a recipe, newest first; none where the gate has spoken."""
    failed = failures_in_a_row(instance, job, {PARTITION_NAME_TAG: key})
    for each_run in failed:
        checks = instance.get_records_for_run(
            each_run.dagster_run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
        )
        for each in checks.records:
            event = each.event_log_entry.dagster_event
            if event is not None and not event.asset_check_evaluation_data.passed:
                return []
    return failed
