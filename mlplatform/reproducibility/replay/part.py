"""Rows of one manifest that are judged together, and what may have given other bits than there are here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from mlplatform.provenance.computing import computing
from mlplatform.registry.bundle import Bundle
from mlplatform.reproducibility.replay.answered import told
from mlplatform.reproducibility.replay.findings import Findings, Places
from mlplatform.reproducibility.replay.verdict import Cause


@dataclass(frozen=True)
class Elsewhere:
    """What computed an answer, and is not what computes here."""

    cause: Cause
    reason: str


class Part:
    """Some rows, numbered from 0 here.

    Parameters
    ----------
    rows : (n, …) of the log
    requests : (n, …) request columns and `at`
    findings : of these and other rows
    places : (n,) of these rows in the findings
    """

    def __init__(
        self, bundle: Bundle, rows: pl.DataFrame, requests: pl.DataFrame, findings: Findings, places: Places
    ) -> None:
        self.bundle = bundle
        self.rows = rows
        self.requests = requests
        self.findings = findings
        self.places = places
        self.told = told(rows)
        self.verified = rows.get_column("digest").is_not_null().to_numpy()
        """Rows that are what was written, for sure."""
        texts = rows.get_column("computing").to_list()
        by_text = {text: other_versions(text) for text in set(texts)}
        self.versions = [by_text[text] for text in texts]
        """By row, what computed it otherwise than here, in words; None: it does not say."""

    def of(self, rows: Places) -> "Part":
        """Some of the rows."""
        return Part(self.bundle, self.rows[rows], self.requests[rows], self.findings, self.places[rows])

    def open(self) -> Places:
        """Rows that nothing has settled yet."""
        still = set(self.findings.open(self.places).tolist())
        return np.array([row for row, place in enumerate(self.places.tolist()) if place in still], dtype=np.intp)

    def note_circumstances(self) -> None:
        """What the rows say of how they came about."""
        for row, (source, reason) in enumerate(self.rows.select("source", "reason").iter_rows()):
            if source != "model":
                self.note(row, f"answered by {source}" + (f": {reason}" if reason else ""))
            elif reason:
                self.note(row, reason)
            versions = self.versions[row]
            if versions is None:
                self.note(row, "the row does not say what computed it")
            elif versions:
                self.note(row, versions)

    def note(self, row: int, text: str) -> None:
        """What is worth knowing of one row."""
        self.findings.note([int(self.places[row])], text)

    def elsewhere(self, row: int, device: str | None = None) -> Elsewhere | None:
        """What may have given other bits; None: nothing that is known.

        Parameters
        ----------
        device : that scored here; None: nothing was scored
        """
        answered = self.rows["device"][row]
        if device is not None and answered != device:
            return Elsewhere("device", f"{answered} answered, {device} replays")
        versions = self.versions[row]
        return Elsewhere("environment", versions) if versions else None


def other_versions(text: str | None) -> str | None:
    """What computed an answer otherwise than here, in words; empty: nothing; None: the log does not say.

    Parameters
    ----------
    text : as the log has it
    """
    if not text:
        return None
    here = computing()
    try:
        there: Mapping[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    names = [name for name in dict.fromkeys([*there, *here]) if there.get(name) != here.get(name)]
    told_names = [name for name in names if name != "lock"] or names
    return "; ".join(f"{name} {there.get(name)} answered, {here.get(name)} replays" for name in told_names)
