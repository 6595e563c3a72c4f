"""The Evidently report of a day: one HTML file to look through, which opens without a network.

It is a picture beside the figures and decides nothing: it is made from bounded samples, with Evidently's own tests,
which alarm far too often. That it cannot be made costs the picture and nothing else.
"""

import re
import warnings
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from mlplatform.errors import ReportFailed
from mlplatform.provenance.files import write_whole
from mlplatform.scoring.booster import Matrix

features_shown = 20
"""The first ones given. Each takes a tenth of a second, and nobody scrolls further."""


def write_report(path: Path, training: Matrix, day: Matrix, names: Sequence[str], title: str) -> None:
    """Write a report that holds some rows of a day beside some of the training set.

    Parameters
    ----------
    path : of the HTML file
    training, day : (n, k) and (m, k) float32, NaN where missing
    names : (k,) the most interesting features first; those without a value on either side cannot be drawn, and are
        named at its top

    Raises
    ------
    ReportFailed
        Evidently raised, whatever it was.
    """
    try:
        html = _report(training, day, names, title)
    except Exception as error:  # it raises anything over an odd column, and a picture must not cost the figures
        raise ReportFailed(title, error) from error
    write_whole(path, html)


def _report(training: Matrix, day: Matrix, names: Sequence[str], title: str) -> str:
    with warnings.catch_warnings():
        # Evidently divides by nothing over constant columns, and pandas calls some of its habits outdated.
        warnings.simplefilter("ignore")
        import pandas as pd
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        # It takes an infinite value for a number until it draws it.
        finite = [np.where(np.isfinite(each), each, np.nan) for each in (day, training)]
        known = np.logical_and.reduce([np.isfinite(each).any(axis=0) for each in finite])
        shown = np.flatnonzero(known)[:features_shown]
        columns = [names[place] for place in shown]
        kinds = DataDefinition(numerical_columns=columns)
        now, then = (
            Dataset.from_pandas(pd.DataFrame(part[:, shown], columns=columns), data_definition=kinds) for part in finite
        )
        made = Report([DataDriftPreset()]).run(now, then, name=title)
        page = str(made.get_html_str(as_iframe=False))
    return _with_note(page, title, [name for name, drawn in zip(names, known, strict=True) if not drawn])


def _with_note(page: str, title: str, empty: Sequence[str]) -> str:
    """Say above the picture what it cannot show: it would call a day without a single value a quiet one."""
    note = f"<b>{escape(title)}</b>: a picture of some rows. What is judged is the table of data_quality."
    if empty:
        note += f" <b>Not drawn, for want of any value on the day or in training: {escape(', '.join(empty))}.</b>"
    body = re.search(r"<body[^>]*>", page)
    place = body.end() if body else 0
    return f'{page[:place]}<p style="font-family: sans-serif; margin: 1em">{note}</p>{page[place:]}'
