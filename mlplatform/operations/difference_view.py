"""The answer of `mlplatform diff`, for people and for scripts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
from rich.console import Console

from mlplatform.domains.registered import registered_domain
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import version_named
from mlplatform.reproducibility.difference.answers import Differently
from mlplatform.reproducibility.difference.difference import Difference, difference
from mlplatform.reproducibility.difference.made import Origins, Pair, TableChange

days_named = 3
"""Days that are named of each kind, the newest; `--json` has all."""


def compared(platform: Platform, before: str, after: str, *, day: str | None, at_most: int) -> Difference:
    """Two versions by their names."""
    left, right = version_named(platform, before), version_named(platform, after)
    domain = registered_domain(left.manifest.model.partition("/")[0])
    return difference(platform, domain, left, right, day=day, at_most=at_most)


def as_json(found: Difference) -> str:
    """For scripts."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def show(found: Difference, console: Console) -> None:
    """For people."""
    plain = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    for name, each in (("A", found.before), ("B", found.after)):
        plain(f"{name}  {each.model} {each.model_version}  {each.manifest[:12]}")
    made = found.made
    _part(plain, "data", _data(made))
    _part(plain, "features", _features(made))
    _part(plain, "code", _code(made))
    _part(plain, "settings", _pairs(made.settings))
    _part(plain, "environment", _pairs(made.environment))
    figures = [f"{each.name}: {_figure(each.before)} → {_figure(each.after)}" for each in made.figures]
    _part(plain, "figures", figures, none="none are known")
    for line in made.unknown:
        plain(f"  not compared: {line}")
    if found.answers is None:
        plain(f"answers: not compared: {found.not_compared}")
    else:
        _answers(plain, found.answers)


def _part(plain: Callable[[str], None], name: str, lines: Iterable[str], *, none: str = "the same") -> None:
    told = list(lines)
    plain(f"{name}: {none}" if not told else f"{name}:")
    for line in told:
        plain(f"  {line}")


def _data(made: Origins) -> Iterator[str]:
    yield from _pairs(made.cut)
    for each in made.data:
        yield f"{each.table}: {', '.join(_days(each))}"


def _days(change: TableChange) -> Iterator[str]:
    for kind, days in (("added", change.added), ("gone", change.removed), ("corrected", change.corrected)):
        if days:
            newest = ", ".join(days[-days_named:])
            yield f"{len(days)} days {kind} ({'… ' if len(days) > days_named else ''}{newest})"


def _features(made: Origins) -> Iterator[str]:
    if made.features_added:
        yield f"added: {', '.join(made.features_added)}"
    if made.features_removed:
        yield f"gone: {', '.join(made.features_removed)}"
    if made.features_moved:
        yield "the same ones in another order"
    yield from (f"view {line}" for line in _pairs(made.views))
    yield from (f"fitted value {each.name}: {each.before} → {each.after}, others" for each in made.fitted)


def _code(made: Origins) -> Iterator[str]:
    yield from _pairs(made.code)
    yield from (f"version of {line}" for line in _pairs(made.functions))
    yield from (f"{each.path}: +{each.added} −{each.removed} lines" for each in made.files)


def _pairs(pairs: Sequence[Pair]) -> Iterator[str]:
    yield from (f"{each.name}: {_value(each.before)} → {_value(each.after)}" for each in pairs)


def _answers(plain: Callable[[str], None], found: Differently) -> None:
    plain(
        f"answers: {found.flips} of {found.rows} logged requests ({found.flips / found.rows:.1%}) get another "
        f"prediction; {found.reviews} begin or cease to need a person"
    )
    moved = ", ".join(f"{float(each):.0%} of them by {value:.4g} or less" for each, value in found.movement.items())
    plain(f"  scores move: {moved}; {found.shift:+.4g} on average")
    for each in found.causes:
        if each.moved == 0 and not each.flips:
            continue
        plain(f"  {each.link}: {each.flips} flips, scores by {each.moved:.4g} on average: {each.cause}")
    for segment in found.segments:
        if segment.flips:
            causes = ", ".join(f"{cause} {flips}" for cause, flips in segment.causes.items())
            plain(
                f"  {segment.segment} {segment.value}: {segment.flips} of {segment.rows} ({causes}), scores by "
                f"{segment.moved:.4g} on average"
            )
    for flip in found.examples:
        before, after = map(_figure, flip.probabilities)
        plain(f"  {flip.request_id}: {flip.before} ({before}) → {flip.after} ({after}): {flip.cause}")
    if found.logged:
        plain(f"  {found.as_logged} of {found.logged} logged scores of the two are given again, to the bit")
    for note in found.notes:
        plain(f"  {note}")


def _figure(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) >= 40 and " " not in text else text
