"""The answer of `mlplatform replay`, for people and for scripts: verdicts, and the trail behind an answer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError
from mlplatform.monitoring.prediction_log import SHADOW
from mlplatform.provenance.platform import Platform
from mlplatform.reproducibility.replay.find import days_answered, find_in_any, sample
from mlplatform.reproducibility.replay.node import Node
from mlplatform.reproducibility.replay.replay import replay
from mlplatform.reproducibility.replay.trail import trail
from mlplatform.reproducibility.replay.verdict import Outcome, Replayed, meaning

children_shown = 2
"""Of one node, on a terminal: the newest days of a window. `--json` has all."""

longest_line = 10_000
"""Of a trail that is not shown on a terminal."""

rows_shown = 20
"""Of a sample, those that are not exact; `--json` has all."""

colours: dict[Outcome, str] = {
    "exact": "green",
    "within_tolerance": "yellow",
    "diverged": "red",
    "impossible": "red",
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One row of a request: what was told, and what the replay says."""

    replayed: Replayed
    prediction: str | None
    probability: float | None
    confidence: float | None
    needs_review: bool
    trail: Node


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request, with the row of its answer first and those of the shadow behind it."""

    domain: str
    request_id: str
    answers: tuple[Answer, ...]

    @property
    def given_again(self) -> bool:
        """Whether every row is exact or within tolerance."""
        return all(given_again(each.replayed) for each in self.answers)

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong on the trails, by name."""
        return dict(pair for each in self.answers for pair in each.trail.faults())


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Some requests of a day."""

    domain: str
    day: str
    replayed: tuple[Replayed, ...]

    @property
    def given_again(self) -> bool:
        """Whether every row is exact or within tolerance."""
        return all(map(given_again, self.replayed))


def given_again(replayed: Replayed) -> bool:
    """Whether a replay gave the answer again."""
    return replayed.verdict.outcome in ("exact", "within_tolerance")


def of_request(
    platform: Platform, domains: Sequence[Domain], request_id: str, *, day: str | None, verify: bool
) -> Request:
    """Find a request in whichever domain answered it, and replay it."""
    domain, rows = find_in_any(platform, domains, request_id, day=day)
    return Request(
        domain=domain.name,
        request_id=request_id,
        answers=tuple(
            Answer(
                replayed=replayed,
                **{name: row[name] for name in ("prediction", "probability", "confidence", "needs_review")},
                trail=trail(platform, domain, row, verify=verify),
            )
            for row, replayed in zip(rows.iter_rows(named=True), replay(platform, domain, rows), strict=True)
        ),
    )


def of_sample(platform: Platform, domains: Sequence[Domain], at_most: int, *, day: str | None) -> Sampled:
    """Replay some requests of a day, the newest there is by default.

    Raises
    ------
    DataError
        No domain answered anything, or several did.
    """
    domain, of = _answering(platform, domains, day)
    rows = sample(platform, domain, of, at_most)
    if rows.is_empty():
        raise DataError(f"{domain.name} logged no answer on {of}. Give another UTC day")
    return Sampled(domain=domain.name, day=of, replayed=tuple(replay(platform, domain, rows)))


def _answering(platform: Platform, domains: Sequence[Domain], day: str | None) -> tuple[Domain, str]:
    """The domain that answered on a day, or on its newest."""
    days = {domain.name: days_answered(platform, domain) for domain in domains}
    newest = day or max((each for logged in days.values() for each in logged), default=None)
    if newest is None:
        names = ", ".join(days)
        raise DataError(f"the log of {names} is empty. Ask a service of this home for an answer first")
    # One domain is asked whatever it has: a day that was removed has no rows, and a tombstone.
    there = [domain for domain in domains if len(domains) == 1 or newest in days[domain.name]]
    if len(there) == 1:
        return there[0], newest
    if not there:
        raise DataError(f"no domain logged an answer on {newest}. Give another UTC day")
    names = " and ".join(domain.name for domain in there)
    raise DataError(f"{names} answered on {newest}. Name one: `mlplatform replay {there[0].name} --sample …`")


def request_as_json(found: Request) -> str:
    """For scripts, with the whole trail."""
    return _json(found)


def sample_as_json(found: Sampled) -> str:
    """For scripts: counts, and each row that is not exact."""
    return _json(
        {
            "domain": found.domain,
            "day": found.day,
            "rows": len(found.replayed),
            "outcomes": Counter(each.verdict.outcome for each in found.replayed),
            "causes": Counter(each.verdict.cause for each in found.replayed if each.verdict.cause),
            "not_exact": [each for each in found.replayed if each.verdict.outcome != "exact"],
        }
    )


def show_request(found: Request, console: Console) -> None:
    """For people: the verdict first, then what was told, then the trail."""
    shown: set[str] = set()
    for each in found.answers:
        replayed, verdict = each.replayed, each.replayed.verdict
        console.print(_verdict(replayed), soft_wrap=True)
        told = [
            f"told {each.prediction if each.prediction is not None else 'no prediction'}",
            *(f"{name} {value!r}" for name, value in _figures(each) if value is not None),
            f"by {replayed.source}",
        ]
        whose = "the shadow's score, told to nobody" if replayed.arm == SHADOW else f"the {replayed.arm}'s answer"
        lines = [f"{whose}: {', '.join(told)}", f"the replay gives {_again(replayed)}"]
        for line in (*lines, *(f"note: {note}" for note in verdict.notes)):
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
        # Into a file or a pipe a line is a line: a path that is cut in two can be neither found nor copied.
        wide = console if console.is_terminal else Console(file=console.file, width=longest_line)
        wide.print(_tree(each.trail, shown))
    for label, fault in found.faults.items():
        console.print(f"[red]at fault[/red] {escape(label)}: {escape(fault)}", highlight=False, soft_wrap=True)


def show_sample(found: Sampled, console: Console) -> None:
    """For people: shares, and the rows to look at."""
    rows = len(found.replayed)
    requests = len({each.request_id for each in found.replayed})
    console.print(
        f"[bold]{escape(found.domain)}[/bold] on {found.day}: {rows} rows of {requests} requests", highlight=False
    )
    outcomes = Counter(each.verdict.outcome for each in found.replayed)
    for outcome, colour in colours.items():
        if count := outcomes[outcome]:
            console.print(
                f"  [{colour}]{_plain(outcome):16}[/{colour}] {count:6}  {count / rows:8.2%}", highlight=False
            )
    causes = Counter(each.verdict.cause for each in found.replayed if each.verdict.cause)
    for cause, count in causes.most_common():
        if cause is not None:
            console.print(f"  {cause:16} {count:6}  {count / rows:8.2%}  {meaning[cause]}", highlight=False)
    others = [each for each in found.replayed if each.verdict.outcome != "exact"]
    for each in others[:rows_shown]:
        console.print(Text(f"{each.request_id}  ").append_text(_verdict(each)), soft_wrap=True)
    if len(others) > rows_shown:
        console.print(f"  and {len(others) - rows_shown} more, see --json", highlight=False)
    if others:
        console.print(f"`mlplatform replay {others[0].request_id}` shows the trail of one", highlight=False)


def _figures(answer: Answer) -> list[tuple[str, float | None]]:
    return [("probability", answer.probability), ("confidence", answer.confidence)]


def _verdict(replayed: Replayed) -> Text:
    verdict = replayed.verdict
    said = ": ".join(part for part in (_plain(verdict.outcome), verdict.cause, verdict.reason) if part)
    whose = f"  ({replayed.arm}, {replayed.model_version})"
    return Text(said, style=colours[verdict.outcome]).append(whose, style="dim")


def _again(replayed: Replayed) -> str:
    match replayed.verdict.outcome:
        case "exact":
            return "the same, to the bit"
        case "impossible":
            return "nothing"
    return f"another answer, by {replayed.difference:.3g} at most" if replayed.difference else "another answer"


def _plain(outcome: Outcome) -> str:
    return outcome.replace("_", " ")


def _tree(node: Node, shown: set[str]) -> Tree:
    """A trail as lines. What is long is cut: of a window the newest days, and each revision is followed down once.

    Parameters
    ----------
    shown : revisions that were followed down already; added to
    """

    def line(each: Node) -> Text:
        text = Text(each.label, style="bold red" if each.fault else "bold")
        text.append(f"  {each.detail}" if each.detail else "", style="not bold")
        return text.append(f"  {each.fault}" if each.fault else "", style="red")

    def grow(parent: Tree, each: Node) -> None:
        if each.label in shown:
            parent.add(Text(each.label, style="bold").append("  as above", style="not bold"))
            return
        if "@" in each.label:
            shown.add(each.label)
        fill(parent.add(line(each)), each)

    def fill(branch: Tree, each: Node) -> None:
        revisions = [child for child in each.children if "@" in child.label]
        left_out = [child for child in revisions[children_shown:] if not any(child.faults())]
        for child in each.children:
            if child not in left_out:
                grow(branch, child)
        if left_out:
            branch.add(f"and {len(left_out)} more, back to {left_out[-1].label}; see --json")

    root = Tree(line(node), guide_style="dim")
    fill(root, node)
    return root


def _json(found: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()
