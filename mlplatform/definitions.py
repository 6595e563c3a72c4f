"""The code location: for every registered domain, the assets of every room, on one platform."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domains.registered import registered_domains
from mlplatform.features.assets import feature_assets
from mlplatform.features.resources import platform_from_settings
from mlplatform.features.sensors import features_job_name, features_sensor
from mlplatform.monitoring.alerts.assets import kept_fresh
from mlplatform.monitoring.alerts.sensors import monitor_sensor
from mlplatform.monitoring.assets import log_key, prediction_log_asset
from mlplatform.monitoring.behaviour.assets import behaviour_asset
from mlplatform.monitoring.behaviour.day import days_to_judge as behaviour_due
from mlplatform.monitoring.behaviour.sensors import behaviour_sensor
from mlplatform.monitoring.daily import Due, answers_of_days_over
from mlplatform.monitoring.outcomes.assets import outcomes_asset, outcomes_weekly_asset
from mlplatform.monitoring.outcomes.outcomes import judgeable as outcomes_due
from mlplatform.monitoring.outcomes.sensors import outcomes_sensor, outcomes_weekly_sensor
from mlplatform.monitoring.partitions import monitor_job_name, monitor_key
from mlplatform.monitoring.quality.assets import quality_asset
from mlplatform.monitoring.quality.quality import days_to_judge as quality_due
from mlplatform.monitoring.quality.sensors import quality_sensor
from mlplatform.monitoring.sensors import pickup_job_name, prediction_log_sensor
from mlplatform.monitoring.skew.assets import skew_asset
from mlplatform.monitoring.skew.sensors import skew_sensor
from mlplatform.provenance.platform import Platform
from mlplatform.registry.assets import registry_assets
from mlplatform.reproducibility.coverage.assets import coverage_asset
from mlplatform.reproducibility.coverage.coverage import nights_due
from mlplatform.reproducibility.coverage.sensors import coverage_sensor
from mlplatform.reproducibility.retention.assets import retention_asset, retention_key
from mlplatform.reproducibility.retention.sensors import retention_job_name, retention_sensor
from mlplatform.retraining.assets import decision_asset
from mlplatform.retraining.sensors import retraining_sensor, training_job_name
from mlplatform.rollout.assets import rollout_assets
from mlplatform.rollout.sensors import release_job_name, rollout_sensor
from mlplatform.settings import silence_telemetry
from mlplatform.training.assets import model_key, training_assets

rooms_of_a_model = (training_assets, registry_assets, rollout_assets)

after_a_rollout = ("rollout", "dossier", "bento")


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """One that judges the days of answers."""

    asset: Callable[[Domain], dg.AssetsDefinition]
    sensor: Callable[[Domain], dg.SensorDefinition]
    due: Due | None = None
    """Which days it can judge, so that it is told when it is late; None: nobody waits for it."""

    every: timedelta = timedelta(days=1)


monitors: Mapping[str, Monitor] = {
    "data_quality": Monitor(asset=quality_asset, sensor=quality_sensor, due=quality_due),
    "model_behaviour": Monitor(asset=behaviour_asset, sensor=behaviour_sensor, due=behaviour_due),
    "outcomes": Monitor(asset=outcomes_asset, sensor=outcomes_sensor, due=outcomes_due),
    "outcomes_weekly": Monitor(asset=outcomes_weekly_asset, sensor=outcomes_weekly_sensor, every=timedelta(days=7)),
    "skew": Monitor(asset=skew_asset, sensor=skew_sensor, due=answers_of_days_over),
    "replay_coverage": Monitor(asset=coverage_asset, sensor=coverage_sensor, due=nights_due),
}
"""By the name of its asset and of its job."""


def build_definitions(domain: Domain) -> dg.Definitions:
    """All that is derived from one domain's declaration."""
    models = [asset for model in domain.models for room in rooms_of_a_model for asset in room(domain, model)]
    pipeline = dg.define_asset_job(
        features_job_name(domain),
        selection=dg.AssetSelection.groups(domain.name),
        description=f"The six stages of {domain.name} for a range of days",
    )
    trainings = [
        dg.define_asset_job(
            training_job_name(domain, model),
            selection=dg.AssetSelection.groups(f"{domain.name}_{model.name}"),
            description=f"From training set to Bento for one recipe of {domain.name}/{model.name}",
        )
        for model in domain.models
    ]
    releases = [
        dg.define_asset_job(
            release_job_name(domain, model),
            selection=dg.AssetSelection.assets(*(model_key(domain, model, name) for name in after_a_rollout)),
            description=f"What follows the end of a rollout of {domain.name}/{model.name}: aliases, dossier, Bento",
        )
        for model in domain.models
    ]
    pickup = dg.define_asset_job(
        pickup_job_name(domain),
        selection=dg.AssetSelection.assets(log_key(domain)),
        description=f"What the gateways of this machine have logged of {domain.name}, into its table",
    )
    removal = dg.define_asset_job(
        retention_job_name(domain),
        selection=dg.AssetSelection.assets(retention_key(domain)),
        description=f"Removes what the policy of {domain.name} lets go, and compacts its prediction log",
    )
    judging = [
        dg.define_asset_job(
            monitor_job_name(domain, name),
            selection=dg.AssetSelection.assets(monitor_key(domain, name)),
            description=f"Judges a day of {domain.name}: {name.replace('_', ' ')}",
        )
        for name in monitors
    ]
    return dg.Definitions(
        assets=[
            feature_assets(domain),
            *models,
            prediction_log_asset(domain),
            retention_asset(domain),
            *(kept_fresh(monitor.asset(domain), monitor.every) for monitor in monitors.values()),
            *(decision_asset(domain, model) for model in domain.models),
        ],
        jobs=[pipeline, *trainings, *releases, pickup, removal, *judging],
        sensors=[
            features_sensor(domain),
            *(retraining_sensor(domain, model) for model in domain.models),
            *(rollout_sensor(domain, model) for model in domain.models),
            prediction_log_sensor(domain),
            retention_sensor(domain),
            *(monitor.sensor(domain) for monitor in monitors.values()),
            monitor_sensor(domain, {name: monitor.due for name, monitor in monitors.items() if monitor.due}),
        ],
    )


def platform_definitions(domains: dict[str, Domain], platform: Platform) -> dg.Definitions:
    """The definitions of some domains, bound to one platform.

    Runs go through the in-process executor: a step in a process of its own costs 5 s of imports, and most take less.
    """
    # Single-run backfills and windows at the start of time are marked beta in 1.13; the versions are locked, the
    # warnings noise.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    bound = dg.Definitions(resources={"platform": platform}, executor=dg.in_process_executor)
    return dg.Definitions.merge(*(build_definitions(domain) for domain in domains.values()), bound)


@dg.definitions
def defs() -> dg.Definitions:
    """What `workspace.yaml` points at; built when Dagster asks for it: an import of this module computes nothing."""
    silence_telemetry()
    return platform_definitions(registered_domains(), platform_from_settings())
