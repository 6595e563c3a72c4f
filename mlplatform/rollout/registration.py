"""An evaluated candidate in MLflow: one run per recipe, its figures and plots, a registered version.

MLflow mirrors; the ledger decides. Registered again, the same version is found.
"""

import json
from dataclasses import asdict

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of, load_candidate
from mlplatform.registry.mlflow_registry import LoggedModel, log_model_run
from mlplatform.registry.origin import require_whole
from mlplatform.training import plots
from mlplatform.training.evaluation import Evaluation

_REGISTERED = "mlflow.json"
"""In the folder of a recipe: what MLflow called the model. To ask MLflow takes the 2 s of its import."""


def register_candidate(
    platform: Platform, domain: Domain, model: ModelSpec, recipe: str, figures: Evaluation
) -> LoggedModel:
    """Log the candidate of a recipe with its evaluation, and register it as `candidate`.

    Raises
    ------
    RecordIncomplete
        Its record does not say all that it was made from.
    Unavailable
        MLflow cannot be reached.
    """
    folder = platform.training(domain.name, model.name, recipe)
    candidate = load_candidate(folder)
    bundle = bundle_of(platform, candidate.manifest)
    require_whole(bundle)
    drawn = {"importance.png": plots.importance_plot(figures)}
    if figures.roc:
        drawn["roc.png"] = plots.roc_plot(figures)
    if figures.calibration_curve:
        drawn["calibration.png"] = plots.calibration_plot(figures)
    for name, png in drawn.items():
        (folder / name).write_bytes(png)
    logged = log_model_run(
        platform.mlflow_uri,
        manifest=bundle.manifest,
        bundle_folder=bundle.folder,
        parameters=candidate.settings,
        metrics={name: each.point for name, each in figures.metrics["candidate"].items() if each.point is not None},
        artifacts=[folder / "evaluation.json", folder / "decision.json", *(folder / name for name in drawn)],
        trials=candidate.trials,
        at=platform.clock(),
    )
    write_whole(folder / _REGISTERED, json.dumps(asdict(logged)))
    return logged


def registered_as(platform: Platform, domain: Domain, model: str, recipe: str) -> LoggedModel | None:
    """Where the model of a recipe is found in MLflow, which is not asked; None: nobody registered it from here."""
    path = platform.training(domain.name, model, recipe) / _REGISTERED
    return LoggedModel(**json.loads(path.read_text())) if path.exists() else None
