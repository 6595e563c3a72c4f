"""The sensor of a model: enough new rows -> one run of a new recipe, from training set to Bento.

One run per recipe: the run key is the recipe's key, which says everything that goes into the model. A run that the gate
has refused is over: the same recipe would be refused again. A run that broke off (killed, a full disk) is tried again,
a few times and with a growing wait.
"""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.events import DagsterEventType  # not exported
from dagster._core.storage.tags import MAX_RETRIES_TAG, PARTITION_NAME_TAG

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import MissingPartition
from mlplatform.features.chain import due
from mlplatform.features.partitions import recipes
from mlplatform.features.sensors import failures_in_a_row, features_job_name, retry_at, unfinished_run
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.decision import decide
from mlplatform.training.recipe import Recipe, load_recipe, save_recipe

seconds_between_ticks = 30
"""A tick costs a listing of one table, and a training takes minutes: no need to look more often."""

attempts = 3
"""Runs of one recipe that may break off. What breaks off three times needs a person."""

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
        description=f"Trains {domain.name}/{model.name} by a new recipe once {model.retraining.new_rows.value:,.0f} "
        f"rows are new ({model.retraining.new_rows.reason}) and its features are up to date.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        if run := unfinished_run(context.instance, platform, job):
            return dg.SensorResult(skip_reason=f"run {run.run_id[:8]} is under way")
        newest = newest_recipe(context.instance, platform, domain, model)
        if newest is not None:
            broken = _broken_off(context.instance, job, newest.key)
            if broken and len(broken) < attempts:
                until = retry_at(broken)
                if until > platform.clock().timestamp():
                    told = f"{datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
                    return dg.SensorResult(skip_reason=f"recipe {newest.key} broke off; tried again at {told}")
                return _launch(domain, model, newest, attempt=len(broken))
        decision = decide(platform, domain, model, newest)
        if decision.recipe is None:
            return dg.SensorResult(skip_reason=decision.reason)
        if unfinished_run(context.instance, platform, features_job_name(domain)) or due(platform, domain).days:
            return dg.SensorResult(skip_reason=f"{decision.reason}; features are being brought up to date first")
        made = decision.recipe
        save_recipe(platform.training(domain.name, model.name, made.key), made)
        context.log.info("recipe %s: %s", made.key, decision.reason)
        return _launch(domain, model, made, attempt=0)

    return sensor


def newest_recipe(instance: dg.DagsterInstance, platform: Platform, domain: Domain, model: ModelSpec) -> Recipe | None:
    """The newest recipe, by its as-of day, that a run was launched for, by whomever."""
    filters = dg.RunsFilter(job_name=training_job_name(domain, model))
    keys = [run.tags.get(PARTITION_NAME_TAG, "") for run in instance.get_runs(filters, limit=runs_looked_at)]
    # Of one day the recipe that was launched last; the newest run stands first, and max() keeps the first of equals.
    newest = max(filter(None, keys), key=lambda key: key[:10], default=None)
    if newest is None:
        return None
    try:
        return load_recipe(platform.training(domain.name, model.name, newest))
    except MissingPartition:
        return None


def _launch(domain: Domain, model: ModelSpec, made: Recipe, *, attempt: int) -> dg.SensorResult:
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=made.key if attempt == 0 else f"{made.key} attempt {attempt + 1}",
                job_name=training_job_name(domain, model),
                partition_key=made.key,
                tags={MAX_RETRIES_TAG: "0"},  # This sensor is what tries again.
            )
        ],
        dynamic_partitions_requests=[recipes(domain, model).build_add_request([made.key])],
    )


def _broken_off(instance: dg.DagsterInstance, job: str, key: str) -> list[dg.RunRecord]:
    """The failed runs of a recipe, newest first; none where the gate has spoken."""
    failed = failures_in_a_row(instance, job, {PARTITION_NAME_TAG: key})
    for record in failed:
        checks = instance.get_records_for_run(
            record.dagster_run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
        )
        for each in checks.records:
            event = each.event_log_entry.dagster_event
            if event is not None and not event.asset_check_evaluation_data.passed:
                return []
    return failed
