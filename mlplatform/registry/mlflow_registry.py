"""The MLflow registry: one run per recipe, its search trials beneath it, one model version, its alias.

MLflow is where people look at models; what serves is decided by the ledger, and the aliases here only mirror it. A
model version points at the bundle's folder: no MLflow flavour, no pickle, nothing is copied. Logging a recipe twice
is logging it once, and an interrupted attempt is taken up where it stopped.

What it costs: the import of MLflow (1.5 to 9 s) and, for a new SQLite file, its migrations (2 to 6 s, once per home);
everything else takes 0.1 s, and 35 ms per trial. So a process logs all it has in one call.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlplatform.errors import Unavailable
from mlplatform.provenance.files import alone
from mlplatform.registry.manifest import Manifest
from mlplatform.settings import silence_telemetry

if TYPE_CHECKING:
    from mlflow import MlflowClient

Alias = Literal["candidate", "challenger", "champion"]

SQLITE = "sqlite:///"

_no_alias = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers for a model, or an alias of one, that it does not have."""


@dataclass(frozen=True, kw_only=True)
class LoggedModel:
    """Where a model is found in MLflow."""

    name: str
    version: str
    run_id: str


def registered_name(model: str) -> str:
    """The name of `domain/model` in MLflow, which allows no slash: `domain.model`."""
    return model.replace("/", ".")


def log_model_run(
    tracking_uri: str,
    *,
    manifest: Manifest,
    bundle_folder: Path,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    artifacts: Sequence[Path] = (),
    trials: Sequence[Mapping[str, Any]] = (),
    alias: Alias | None = "candidate",
    at: datetime,
) -> LoggedModel:
    """Log the making of one model, and register it.

    Parameters
    ----------
    tracking_uri : MLflow server or `sqlite:///…`; beside such a file the artifacts are kept
    bundle_folder : source of the model version
    artifacts : files such as `evaluation.json` and plots; copied
    trials : of the search, each with `number`, `params`, `value`; each becomes a run nested under this one
    alias : to set on the version; None sets none
    at : aware; when the run started, as MLflow shows it

    Returns
    -------
    where : name, version and run; those of the first call for this recipe and manifest
    """
    client = _client(tracking_uri)
    experiment = _experiment(client, manifest.model, tracking_uri)
    tags = {"recipe": manifest.model_version, "manifest": manifest.digest}
    started = int(at.timestamp() * 1000)
    run_id = _run(client, experiment, tags, name=manifest.model_version, started=started)
    if client.get_run(run_id).info.status != "FINISHED":
        _log(client, run_id, parameters, metrics, started)
        for path in artifacts:
            client.log_artifact(run_id, str(path))
        for trial in trials:
            trial_tags = {**tags, "trial": str(trial["number"]), "mlflow.parentRunId": run_id}
            nested = _run(client, experiment, trial_tags, name=f"trial {trial['number']}", started=started)
            if client.get_run(nested).info.status != "FINISHED":
                _log(client, nested, trial["params"], {"value": trial["value"]}, started)
                client.set_terminated(nested)
        client.set_terminated(run_id)
    name = registered_name(manifest.model)
    version = _version(client, name, tags, source=bundle_folder, run_id=run_id)
    if alias is not None:
        client.set_registered_model_alias(name, alias, version)
    return LoggedModel(name=name, version=version, run_id=run_id)


def set_alias(tracking_uri: str, *, manifest: Manifest, alias: Alias) -> None:
    """Point an alias at the registered version of a manifest.

    Raises
    ------
    Unavailable
        The manifest was never logged there.
    """
    client = _client(tracking_uri)
    name = registered_name(manifest.model)
    version = _registered(client, name, manifest.digest)
    if version is None:
        raise Unavailable(
            f"MLflow holds no version of {name} with manifest {manifest.short_digest}. Log the model first"
        )
    client.set_registered_model_alias(name, alias, version)


def remove_alias(tracking_uri: str, *, model: str, alias: Alias) -> None:
    """Let an alias of `domain/model` point at nothing; nothing is done where it does."""
    if digest_of_alias(tracking_uri, model=model, alias=alias) is not None:
        _client(tracking_uri).delete_registered_model_alias(registered_name(model), alias)


def digest_of_alias(tracking_uri: str, *, model: str, alias: Alias) -> str | None:
    """Digest of the manifest that an alias of `domain/model` points at; None where it points at nothing.

    A database that is not there is not made for the question.
    """
    if tracking_uri.startswith(SQLITE) and not Path(tracking_uri.removeprefix(SQLITE)).exists():
        return None
    from mlflow.exceptions import MlflowException

    try:
        version = _client(tracking_uri).get_model_version_by_alias(registered_name(model), alias)
    except MlflowException as error:
        if error.error_code in _no_alias:
            return None
        raise
    return version.tags.get("manifest")


def _client(tracking_uri: str) -> "MlflowClient":
    silence_telemetry()
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of every table that it creates
    if not tracking_uri.startswith(SQLITE):
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    database = Path(tracking_uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    # MLflow creates a missing database without a lock: two runs that start together would both migrate it.
    with alone(database.with_suffix(".lock")):
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        client.search_registered_models(max_results=1)
    return client


def _experiment(client: "MlflowClient", model: str, tracking_uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(model)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if tracking_uri.startswith(SQLITE):
        location = (Path(tracking_uri.removeprefix(SQLITE)).absolute().parent / "artifacts" / model).as_uri()
    try:
        return client.create_experiment(model, artifact_location=location)
    except MlflowException:
        found = client.get_experiment_by_name(model)
        if found is None:
            raise
        return str(found.experiment_id)  # another run was quicker


def _run(client: "MlflowClient", experiment: str, tags: Mapping[str, str], *, name: str, started: int) -> str:
    """The run with exactly these tags, made if it is not there."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    for run in client.search_runs([experiment], wanted, max_results=1000):
        if ("trial" in run.data.tags) == ("trial" in tags):
            return str(run.info.run_id)
    return str(client.create_run(experiment, start_time=started, tags=dict(tags), run_name=name).info.run_id)


def _log(
    client: "MlflowClient", run_id: str, parameters: Mapping[str, Any], metrics: Mapping[str, float], at: int
) -> None:
    from mlflow.entities import Metric, Param

    client.log_batch(
        run_id,
        metrics=[Metric(name, value, at, 0) for name, value in metrics.items()],
        params=[Param(name, str(value)) for name, value in parameters.items()],
    )


def _version(client: "MlflowClient", name: str, tags: Mapping[str, str], *, source: Path, run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    registered = _registered(client, name, tags["manifest"])
    if registered is not None:
        return registered
    return str(client.create_model_version(name, source=str(source.absolute()), run_id=run_id, tags=dict(tags)).version)


def _registered(client: "MlflowClient", name: str, digest: str) -> str | None:
    for version in client.search_model_versions(f"name = '{name}'", max_results=1000):
        if version.tags.get("manifest") == digest:
            return str(version.version)
    return None
