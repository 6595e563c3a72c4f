"""A candidate before the gate: its evaluation on held-out rows, and the decision, both kept as data.

The champion is scored on the same rows as the candidate. The decision names both; it says nothing about any other pair.
"""

import logging
from pathlib import Path

import numpy as np

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle, Scores
from mlplatform.registry.candidate import bundle_of, load_candidate
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.origin import require_whole
from mlplatform.rollout.gate import Decision, decide
from mlplatform.scoring.booster import matrix, raw_scores
from mlplatform.training.dataset import SCORES_FILE, immaturity, load_rows
from mlplatform.training.evaluate import evaluate, measure_latency
from mlplatform.training.evaluation import Evaluation
from mlplatform.training.examples import Examples, examples
from mlplatform.training.recipe import Recipe

log = logging.getLogger(__name__)


def judge_candidate(
    platform: Platform, domain: Domain, model: ModelSpec, recipe: Recipe
) -> tuple[Evaluation, Decision]:
    """Evaluate the candidate of a recipe against the champion of now, decide, and keep both.

    Raises
    ------
    DataError
        There is no candidate of that recipe.
    RecordIncomplete
        Its record does not say all that it was made from.
    """
    folder = platform.training(domain.name, model.name, recipe.key)
    candidate = load_candidate(folder)
    bundle = bundle_of(platform, candidate.manifest)
    require_whole(bundle)
    rows = load_rows(folder)
    cut = examples(domain, model, recipe, rows)
    held_out = cut.parts.evaluation
    champion = Ledger(platform).champion(recipe.model)
    rival = champion if champion != bundle.digest else None
    features = bundle.features(cut.requests[held_out], cut.view_values[held_out])
    scores = bundle.scores(features)
    evaluation = evaluate(
        model,
        labels=cut.labels[held_out],
        at=cut.requests["at"].gather(held_out),
        candidate=np.load(folder / SCORES_FILE),
        simple=bundle.simple.predict(features),
        training_labels=cut.labels[cut.parts.train],
        champion=None if rival is None else _champion_scores(bundle_of(platform, rival), recipe, cut),
        requests=cut.requests[held_out],
        importance=candidate.importance,
        exported=scores,
        latency=measure_latency(
            lambda one: bundle.calibration.apply(raw_scores(bundle.booster, one)), matrix(features)
        ),
        immaturity=immaturity(model, recipe.cut_off, rows),
    )
    decision = decide(model, evaluation, candidate=bundle.digest, champion=rival, decided_at=platform.clock())
    write_whole(folder / "evaluation.json", evaluation.to_json())
    write_whole(folder / "decision.json", decision.to_json())
    return evaluation, decision


def load_decision(folder: Path) -> Decision:
    """The decision on a recipe.

    Raises
    ------
    DataError
        The candidate was not evaluated.
    """
    path = folder / "decision.json"
    if not path.exists():
        raise DataError(f"there is no decision on recipe {folder.name}. Materialise `evaluation` of that recipe first")
    return Decision.from_json(path.read_text())


def load_evaluation(folder: Path) -> Evaluation:
    """The evaluation of a recipe's candidate.

    Raises
    ------
    DataError
        The candidate was not evaluated.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        raise DataError(
            f"there is no evaluation of recipe {folder.name}. Materialise `evaluation` of that recipe first"
        )
    return Evaluation.from_json(path.read_text())


def _champion_scores(champion: Bundle, recipe: Recipe, cut: Examples) -> Scores | None:
    """Scores of the champion on the candidate's evaluation rows, through its own feature code and fitted values.

    None where it cannot be judged fairly: it reads a view that this training set does not hold, or holds in another
    version than it was trained on. The gate takes that for what it is, missing evidence, and does not pass.
    """
    differing = [view for view, version in champion.manifest.views.items() if recipe.view_versions.get(view) != version]
    if differing:
        log.warning("the champion was trained on another version of %s: it cannot be compared", ", ".join(differing))
        return None
    rows = cut.parts.evaluation
    return champion.scores(champion.features(cut.requests[rows], cut.view_values[rows]))
