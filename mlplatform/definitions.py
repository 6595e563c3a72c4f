"""The code location: for every registered domain, the assets of every room, on one platform."""

import warnings

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domains.registered import registered_domains
from mlplatform.features.assets import feature_assets
from mlplatform.features.resources import platform_from_settings
from mlplatform.features.sensors import features_job_name, features_sensor
from mlplatform.monitoring.assets import log_key, monitoring_assets
from mlplatform.monitoring.checks import skew_key
from mlplatform.monitoring.sensors import pickup_job_name, prediction_log_sensor, skew_job_name, skew_sensor
from mlplatform.provenance.platform import Platform
from mlplatform.registry.assets import registry_assets
from mlplatform.retraining.sensors import retraining_sensor, training_job_name
from mlplatform.rollout.assets import rollout_assets
from mlplatform.settings import silence_telemetry
from mlplatform.training.assets import training_assets

rooms_of_a_model = (training_assets, registry_assets, rollout_assets)


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
    pickup = dg.define_asset_job(
        pickup_job_name(domain),
        selection=dg.AssetSelection.assets(log_key(domain)),
        description=f"What the gateways of this machine have logged of {domain.name}, into its table",
    )
    skew = dg.define_asset_job(
        skew_job_name(domain),
        selection=dg.AssetSelection.assets(skew_key(domain)),
        description=f"What the models of {domain.name} were served on a day, beside what they were trained on",
    )
    return dg.Definitions(
        assets=[feature_assets(domain), *models, *monitoring_assets(domain)],
        jobs=[pipeline, *trainings, pickup, skew],
        sensors=[
            features_sensor(domain),
            *(retraining_sensor(domain, model) for model in domain.models),
            prediction_log_sensor(domain),
            skew_sensor(domain),
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
