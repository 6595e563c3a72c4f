"""The outcome as a number: which task the label asks for, and how its values become 0 and 1, classes or an amount."""

from dataclasses import dataclass

import polars as pl

from mlplatform.domain.model import Task
from mlplatform.errors import DeclarationError

yes_words = ("1", "bad", "churned", "default", "failed", "failure", "fault", "fraud", "late", "positive", "true", "yes")
"""Of two words for an outcome, one of these is what is predicted; without any, the rarer one is."""

most_classes = 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The label, read as a number."""

    label: str
    task: Task
    why: str
    classes: tuple[str, ...] = ()
    """Values of a text label (multiclass: of any), in the order of their numbers."""

    values: pl.Series
    """Int8, or Float64 for a regression; null: no outcome yet."""


def outcome_of(label: pl.Series, task: Task | None) -> Outcome:
    """The outcome of a label column.

    Raises
    ------
    DeclarationError
        The label cannot be what the task asks for, or says the same in every row.
    """
    name, known = label.name, label.drop_nulls()
    distinct = known.n_unique()
    if distinct < 2:
        raise DeclarationError(f"--label: {name} says the same in every row. Name what is to be predicted")
    if isinstance(label.dtype, pl.Datetime):
        raise DeclarationError(f"--label: {name} is a time. Name an amount or a class, such as the hours until then")
    number = label.dtype.is_numeric()
    chosen: Task = task or ("binary" if distinct == 2 else "regression" if number else "multiclass")
    said = "as --task says" if task else f"it has {distinct} different values" + (" and is a number" if number else "")
    if chosen == "regression":
        if not number:
            raise DeclarationError(f"--task: {name} is no number, so there is no amount to predict. Say multiclass")
        return Outcome(label=name, task=chosen, why=f"regression: {said}", values=label.cast(pl.Float64))
    if chosen == "binary":
        if distinct != 2:
            raise DeclarationError(f"--task: {name} has {distinct} different values, and binary means two")
        return _binary(label, said)
    if distinct > most_classes or distinct < 3 or label.dtype.is_float():
        raise DeclarationError(
            f"--label: {name} has {distinct} different values; classes are 3 to {most_classes} words or whole numbers. "
            "Group them in the sample, or name another label"
        )
    classes = tuple(str(value) for value in known.unique().sort().to_list())
    numbers = {text: number for number, text in enumerate(classes)}
    values = label.cast(pl.String).replace_strict(numbers, default=None, return_dtype=pl.Int8)
    return Outcome(label=name, task=chosen, why=f"multiclass: {said}", classes=classes, values=values)


def _binary(label: pl.Series, said: str) -> Outcome:
    counts = label.drop_nulls().value_counts().sort("count", label.name)
    rarer, other = counts[label.name].to_list()
    if label.dtype == pl.Boolean():
        yes, why = True, "1 is true"
    elif label.dtype.is_numeric():
        yes, why = max(rarer, other), f"1 is {max(rarer, other)}"
    else:
        named = [value for value in (rarer, other) if str(value).lower() in yes_words]
        yes = named[0] if len(named) == 1 else rarer
        why = f"1 is {yes!r}" + ("" if len(named) == 1 else ", the rarer one")
    no = other if yes == rarer else rarer
    return Outcome(
        label=label.name,
        task="binary",
        why=f"binary: {said}; {why}",
        classes=(str(no), str(yes)),
        values=(label == yes).cast(pl.Int8),
    )


def digits_of(values: pl.Series) -> int:
    """Digits after the point that the values have, at most 3: what a mean by whole numbers must keep."""
    known = values.drop_nulls().cast(pl.Float64)
    return next((each for each in range(3) if (known.round(each) == known).all()), 3)
