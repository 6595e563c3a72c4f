"""The daily digest of a domain: what each model did, in figures, what is wrong, and what is late.

It is read by people who look at nothing else, so it says everything once and in the same order every day. It is made of
what the monitors have kept, and judges nothing itself; who is told, and how, is the business of alerts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.tables import day_range
from mlplatform.monitoring.daily import Due
from mlplatform.monitoring.findings_table import judgements
from mlplatform.monitoring.outcomes.history import KeptDays, window_figures
from mlplatform.monitoring.outcomes.outcomes import MONITOR, judgeable
from mlplatform.monitoring.outcomes.plots import said
from mlplatform.monitoring.outcomes.tally import ASSOCIATION, BIAS, BUSINESS
from mlplatform.monitoring.pickup import answers_on
from mlplatform.provenance.platform import Platform

days_back = 14
"""In which the newest judged day is looked for, and days that are late."""


@dataclass(frozen=True, kw_only=True)
class Digest:
    """What is sent, as plain text and as Markdown."""

    day: str
    """ISO day that it is about: the one before it is sent."""

    subject: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]
    """Title and lines."""

    @property
    def text(self) -> str:
        """For mails and pagers."""
        parts = [[title, *(f"  {line}" for line in lines)] for title, lines in self.sections]
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    @property
    def markdown(self) -> str:
        """For chats and the UI."""
        parts = [[f"**{title}**", "", *(f"- {line}" for line in lines)] for title, lines in self.sections]
        return "\n\n".join("\n".join(part) for part in parts) + "\n"


def digest(platform: Platform, domain: Domain, day: str, *, monitors: Mapping[str, Due] | None = None) -> Digest:
    """The digest about a day.

    Parameters
    ----------
    day : ISO day; the one before today
    monitors : name -> which days it can judge, for saying which are late; None: the outcomes alone
    """
    first = (date.fromisoformat(day) - timedelta(days=days_back - 1)).isoformat()
    answers = answers_on(platform, domain, day)
    kept = KeptDays(platform, domain, day_range(first, day))
    models = [(f"{domain.name}/{model.name}", tuple(_model(model, day, kept))) for model in domain.models]
    open_findings = _open(platform, domain, first, day)
    late = _late(platform, domain, monitors or {MONITOR: judgeable}, first, day)
    wrong = len(open_findings)
    state = f"{wrong} finding{'s' if wrong != 1 else ''}" if wrong else "nothing is wrong"
    return Digest(
        day=day,
        subject=f"{domain.name} on {day}: {answers:,} answers, {state}" + (", some days late" if late else ""),
        sections=(
            (f"{domain.name} on {day}", (f"{answers:,} answers were logged",)),
            *models,
            ("Open findings", tuple(open_findings) or ("none",)),
            ("Late", tuple(late) or ("nothing",)),
        ),
    )


def _model(model: ModelSpec, day: str, kept: KeptDays) -> list[str]:
    """What a model did: labels of the day, the newest mature day, and the week up to it."""
    lines = []
    counts = kept.counts.filter(pl.col("model") == model.name, pl.col("day") == day)
    for each in counts.iter_rows(named=True):
        share = each["labelled"] / each["answers"] if each["answers"] else 0.0
        line = f"{day}: {each['answers']:,} answers, {share:.0%} with their label"
        if not each["mature"]:
            line += f"; judged from {each['mature_at']:%Y-%m-%d %H:%M} UTC on"
        if each["early_bias"] is not None:
            line += f"; labels so early have put {model.gate.metric} off by {each['early_bias']:+.3g}"
        if each["contradicted"]:
            line += f"; {each['contradicted']:,} labels contradict another one"
        lines.append(line)
    if counts.is_empty():
        lines.append(f"{day}: not looked at yet, or nothing answered")
    parts = kept.parts(model.name)
    if not parts:
        return [*lines, "no day with all of its labels"]
    newest = max(parts)
    lines += _figures(model, f"{newest}, the newest day with its labels", parts[newest][0])
    since = (date.fromisoformat(newest) - timedelta(days=6)).isoformat()
    week = {each: part for each, part in parts.items() if each >= since}
    if len(week) > 1:
        lines += _figures(model, f"{len(week)} days up to {newest}", window_figures(model, week))
    return lines


def _figures(model: ModelSpec, title: str, figures: pl.DataFrame) -> list[str]:
    """A line per manifest and arm, and one for each fallback."""
    overall = figures.filter(pl.col("segment") == "")
    shown = [model.gate.metric, BIAS, ASSOCIATION, *(BUSINESS + each.name for each in model.monitoring.business)]
    lines = []
    for of in overall.partition_by("manifest", "arm", "source", maintain_order=True):
        key = of.row(0, named=True)
        manifest, arm, source = str(key["manifest"]), str(key["arm"]), str(key["source"])
        by_name = {each["metric"]: each for each in of.iter_rows(named=True)}
        told = ", ".join(said(by_name[name]) for name in shown if name in by_name)
        who = f"{manifest[:12]} ({arm})" if source == "model" else f"{manifest[:12]} ({arm}, answered by {source})"
        lines.append(f"{title}: {who}, {max(of['rows']):,} labels: {told or 'no figure'}")
    return lines


def _open(platform: Platform, domain: Domain, first: str, day: str) -> list[str]:
    """Of the newest day that each monitor has judged, what it has found."""
    newest = {each.monitor: each for each in judgements(platform, domain, since=first, until=day)}
    return [
        f"{each.rule} of {each.subject} on {each.day} ({name}): {each.summary}"
        for name, judged in sorted(newest.items())
        for each in judged.findings
        if each.harmful
    ]


def _late(platform: Platform, domain: Domain, monitors: Mapping[str, Due], first: str, day: str) -> list[str]:
    """Days that could have been judged and were not."""
    lines = []
    for name, due in sorted(monitors.items()):
        judged = {each.day for each in judgements(platform, domain, monitors=[name], since=first, until=day)}
        missing = sorted(each for each in due(platform, domain) if first <= each <= day and each not in judged)
        if missing:
            lines.append(f"{name} has not judged {_listed(missing)}: look at its runs and at its sensor")
    return lines


def _listed(days: Sequence[str]) -> str:
    return ", ".join(days) if len(days) <= 3 else f"{len(days)} days since {days[0]}"
