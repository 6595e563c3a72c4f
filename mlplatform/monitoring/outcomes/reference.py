"""What a model showed on the days on which it was evaluated: the measure of what it shows when it serves.

The rows, labels and scores are those of the evaluation, so nothing is scored again; the figures of its days are kept by
manifest, once.
"""

import io

import numpy as np
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import BundleError, DataError
from mlplatform.features.stage import Draft, Written
from mlplatform.monitoring.outcomes.tables import reference_schema, reference_table
from mlplatform.monitoring.outcomes.tally import figures, tally
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.candidate import bundle_of
from mlplatform.scoring.postprocess import answers
from mlplatform.training.dataset import SCORES_FILE, load_rows
from mlplatform.training.examples import examples
from mlplatform.training.recipe import load_recipe


def reference_of(platform: Platform, domain: Domain, manifest: str, *, run_id: str = "") -> pl.DataFrame | str:
    """Figures of each evaluation day of a manifest, as `reference_schema`; a text says why there are none.

    What was made once is read; what was not is made, and kept.
    """
    table = reference_table(platform, domain)
    if manifest in table.current([manifest]):
        return table.read([manifest])
    try:
        rows = evaluation_days(platform, bundle_of(platform, manifest))
    except (BundleError, DataError) as error:
        return str(error)
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    table.append({manifest: Draft(rows=rows)}, written)
    return rows


def evaluation_days(platform: Platform, bundle: Bundle) -> pl.DataFrame:
    """Figures of each day of the evaluation part, by the declaration that the model was trained with.

    Raises
    ------
    DataError
        What the recipe made is not on this machine.
    """
    domain, model = bundle.domain, bundle.model
    folder = platform.training(domain.name, model.name, bundle.manifest.model_version)
    recipe = load_recipe(folder)
    cut = examples(domain, model, recipe, load_rows(folder))
    path = folder / SCORES_FILE
    if not path.exists():
        raise DataError(f"{folder.name} has no scores of its evaluation. Materialise `model` of that recipe again")
    scores = np.load(io.BytesIO(path.read_bytes()))
    part = cut.parts.evaluation
    rows = cut.requests[part].with_columns(
        block=pl.col("at").dt.date().to_physical().cast(pl.Int32),
        manifest=pl.lit(bundle.digest),
        arm=pl.lit("champion"),
        source=pl.lit("model"),
        label=pl.Series(cut.labels[part]),
        day=pl.col("at").dt.date().cast(pl.String),
    )
    rows = rows.hstack(answers(model, scores).select("prediction", "probability"))
    days = []
    for (day,), places in rows.with_row_index("place").group_by(["day"], maintain_order=True):
        of = places["place"].to_numpy()
        told = figures(model, tally(model, rows[of], scores[of]))
        days.append(told.with_columns(day=pl.lit(str(day))).select(list(reference_schema)))
    return pl.concat([pl.DataFrame(schema=reference_schema), *days]).sort("day")
