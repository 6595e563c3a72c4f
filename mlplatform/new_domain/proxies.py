"""How much one column alone says of the outcome, and which ones say so much that they must have been written after it.

A quick look, not a proof: what each column says is learned on the earlier rows and judged on the later ones, missing
values being a value of their own. A column that all but gives the outcome away is likelier a copy of it than a cause.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from mlplatform.domain.model import Task
from mlplatform.training.metrics import value

too_good = 0.97
"""AUC, accuracy or share of the variance from which a single column is taken for a copy of the outcome. Honest single
columns of hard problems reach 0.8, of easy ones 0.95."""

few_outcomes = 10
"""With fewer rows of the rarer kind among the later ones an AUC says nothing."""

bins, most_values = 50, 200

exact = 0.9999
"""Share of the variance from which a sum of columns is the outcome, up to rounding."""


def tells(rows: pl.DataFrame, column: str, task: Task) -> float:
    """AUC (binary), accuracy (multiclass) or share of the variance (regression) of one column alone.

    Parameters
    ----------
    rows : (n, …) sorted by time, with `outcome` and without nulls in it
    column : Int64, Float64, Boolean, String, or times
    task : of the outcome

    Returns
    -------
    0 to 1; 0 where nothing can be said.
    """
    groups = _groups(rows[column])
    if groups is None:
        return 0.0
    known = pl.DataFrame({"group": groups, "outcome": rows["outcome"].cast(pl.Float64)})
    cut = int(known.height * 0.6)
    earlier, later = known[:cut], known[cut:]
    labels = later["outcome"].to_numpy()
    if not len(labels) or not cut:
        return 0.0
    guess = pl.col("outcome").mode().sort().first() if task == "multiclass" else pl.col("outcome").mean()
    learned = earlier.group_by("group").agg(guess=guess)
    otherwise = earlier.select(guess).item()
    guesses = later.join(learned, on="group", how="left", maintain_order="left")["guess"].fill_null(otherwise)
    scores = guesses.to_numpy()
    if task == "binary":
        rarer = min(int(labels.sum()), int(len(labels) - labels.sum()))
        if rarer < few_outcomes:
            return 0.0
        return value("auc", labels, scores)
    if task == "multiclass":
        shares = later["outcome"].value_counts(normalize=True)["proportion"].max()
        accuracy = float((labels == scores).mean())
        return accuracy if isinstance(shares, float) and accuracy > shares else 0.0
    variance = float(labels.var())
    return max(0.0, 1.0 - float(((labels - scores) ** 2).mean()) / variance) if variance else 0.0


def sums_to_outcome(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[str, ...]:
    """Number columns that, added up with fixed factors, give the outcome of every row; empty where none do."""
    complete = rows.select(*columns, "outcome").cast(pl.Float64).drop_nulls()
    names = [name for name in columns if complete.height and complete[name].n_unique() > 1]
    if complete.height < 5 * (len(names) + 1) or not names:
        return ()
    if _explained(complete, names) < exact:
        return ()
    return tuple(
        name for name in names if len(names) == 1 or _explained(complete, [n for n in names if n != name]) < exact
    )


def _groups(column: pl.Series) -> pl.Series | None:
    """The value of each row as one of a few; None: there are too many, and each says only something of itself."""
    if column.dtype in (pl.String(), pl.Boolean()):
        values = column.cast(pl.String).fill_null("nothing")
        return values if values.n_unique() <= most_values else None
    numbers = column.to_physical().cast(pl.Float64)
    if numbers.n_unique() <= most_values:
        return numbers.cast(pl.String).fill_null("nothing")
    edges = sorted({numbers.quantile(each / bins) or 0.0 for each in range(1, bins)})
    bin_of = pl.Series(np.searchsorted(edges, numbers.fill_null(0.0).to_numpy())).cast(pl.String)
    return bin_of.set(numbers.is_null(), "nothing")


def _explained(rows: pl.DataFrame, names: Sequence[str]) -> float:
    design = rows.select(*names).to_numpy()
    design = np.column_stack([(design - design.mean(axis=0)) / design.std(axis=0), np.ones(len(design))])
    outcome = rows["outcome"].to_numpy()
    solved, *_ = np.linalg.lstsq(design, outcome, rcond=None)
    variance = float(outcome.var())
    return 1.0 - float(((outcome - design @ solved) ** 2).mean()) / variance if variance else 0.0
