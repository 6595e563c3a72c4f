"""What two versions of a model were made from, side by side: data, features, code, settings, environment, figures.

It is read from the bundles, which hold it (`registry.origin`); of a bundle that an older version wrote, from the
training folder, as far as that is there. It computes nothing anew and answers nothing.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlplatform.errors import DataError
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import CODE, Bundle
from mlplatform.registry.candidate import load_candidate
from mlplatform.registry.manifest import diff
from mlplatform.registry.origin import Inputs, origin_of
from mlplatform.rollout.judge import load_evaluation
from mlplatform.training.recipe import Recipe, facts_table, load_recipe

_not_settings = ("features", "files", "fitted", "model_version", "package", "record", "rollback_target", "views")
"""Parts of a manifest that are told of elsewhere."""

_training = ("settings.", "found.", "split.", "search.", "label.", "seeds.")
"""Settings that decide what a training makes; the others decide what is made of its scores, or how it is served."""


@dataclass(frozen=True, kw_only=True)
class TableChange:
    """A table that both were made from, or one of them."""

    table: str
    days: tuple[int, int]
    added: tuple[str, ...]
    """Days that only the second has."""

    removed: tuple[str, ...]
    corrected: tuple[str, ...]
    """Days of both with other content; where no content hash is known, with another revision."""


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """A file of the bundled code."""

    path: str
    added: int
    """Lines."""

    removed: int


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One thing, before and after."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Origins:
    """What differs in what two versions were made from."""

    data: tuple[TableChange, ...]
    """Tables that differ."""

    cut: tuple[Pair, ...]
    """Label cut-off, rows and content hash of the training set, where they differ."""

    features_added: tuple[str, ...]
    features_removed: tuple[str, ...]
    features_moved: bool
    """The same ones in another order."""

    views: tuple[Pair, ...]
    """Versions of views."""

    fitted: tuple[Pair, ...]
    """Fitted values that differ: how many entries each has."""

    code: tuple[Pair, ...]
    """Commit, uncommitted changes, version of the training code."""

    functions: tuple[Pair, ...]
    """Versions of what the domain's own code gives: `label`, `requests`, `rules`, on-demand features, fitted values."""

    files: tuple[FileChange, ...]
    settings: tuple[Pair, ...]
    environment: tuple[Pair, ...]
    figures: tuple[Pair, ...]
    """Metrics of the two evaluations, each on its own rows, the equal ones too."""

    unknown: tuple[str, ...]
    """What could not be compared, and why."""

    @property
    def feature_code(self) -> bool:
        """Whether code that makes inputs of a request and view values is another."""
        return any(each.name.startswith(("on-demand", "fitted")) for each in self.functions)

    def same_inputs(self) -> bool:
        """Whether both make the same inputs of the same request and view values, in the same order."""
        others = self.features_added or self.features_removed or self.features_moved
        return not (others or self.views or self.fitted or self.feature_code)

    def training_causes(self) -> tuple[str, ...]:
        """What of it may have made other weights: of `data`, `features`, `code`, `settings`, `environment`."""
        told = {
            "data": any(each.table not in {pair.name for pair in self.views} for each in self.data)
            or any(each.name == "label cut-off" for each in self.cut),
            "features": bool(self.features_added or self.features_removed or self.features_moved or self.views),
            "code": any(each.name != "rules" for each in self.functions)
            or any(each.name == "training code" for each in self.code),
            "settings": any(each.name.startswith(_training) for each in self.settings),
            "environment": bool(self.environment),
        }
        return tuple(cause for cause, differs in told.items() if differs)


@dataclass(frozen=True)
class _Known:
    recipe: Recipe | None
    inputs: Inputs | None
    training_set: Mapping[str, Any]
    found: Mapping[str, Any]
    facts: str
    """The table of the requests' facts, as the inputs name it."""

    missing: str = ""


def made_differently(platform: Platform, before: Bundle, after: Bundle) -> Origins:
    """Compare what two versions of a model were made from."""
    left, right = _known(platform, before), _known(platform, after)
    old, new = before.manifest, after.manifest
    names, others = set(old.features), set(new.features)
    kept = [name for name in old.features if name in others]
    figures, unjudged = _figures(platform, before, after)
    return Origins(
        data=tuple(_tables(left, right)),
        cut=tuple(_pairs(_cut(left), _cut(right))),
        features_added=tuple(name for name in new.features if name not in names),
        features_removed=tuple(name for name in old.features if name not in others),
        features_moved=kept != [name for name in new.features if name in names],
        views=tuple(_pairs(old.views, new.views)),
        fitted=tuple(_fitted(before, after)),
        code=tuple(_pairs(_code(before), _code(after))),
        functions=tuple(_pairs(_functions(before), _functions(after))),
        files=tuple(_files(before, after)),
        settings=tuple(_settings(before, after, left, right)),
        environment=tuple(_pairs(_environment(before), _environment(after))),
        figures=figures,
        unknown=tuple(dict.fromkeys(each for each in (left.missing, right.missing, *unjudged) if each)),
    )


def _known(platform: Platform, bundle: Bundle) -> _Known:
    facts = facts_table(bundle.domain)
    try:
        origin = origin_of(bundle)
    except DataError:
        return _of_training_folder(platform, bundle, facts)
    return _Known(origin.recipe, origin.inputs, origin.training_set, origin.said.settings, facts)


def _of_training_folder(platform: Platform, bundle: Bundle, facts: str) -> _Known:
    domain, _, model = bundle.manifest.model.partition("/")
    folder = platform.training(domain, model, bundle.manifest.model_version)
    try:
        recipe = load_recipe(folder)
        settings = load_candidate(folder).settings
        described = json.loads((folder / "training_set.json").read_text())
    except (DataError, OSError):
        missing = f"what {bundle.manifest.short_digest} was made from is neither in its bundle nor kept"
        return _Known(None, None, {}, {}, facts, missing)
    missing = f"{bundle.manifest.short_digest} tells of revisions and not of their content"
    return _Known(recipe, None, described, settings, facts, missing)


def _tables(left: _Known, right: _Known) -> Iterator[TableChange]:
    if left.recipe is None or right.recipe is None:
        return
    before, after = _revisions(left), _revisions(right)
    if left.inputs is None or right.inputs is None:
        # Only numbers are known of one of them.
        before = {table: {day: each[:1] for day, each in days.items()} for table, days in before.items()}
        after = {table: {day: each[:1] for day, each in days.items()} for table, days in after.items()}
    for table in sorted(before.keys() | after.keys()):
        old, new = before.get(table, {}), after.get(table, {})
        # The content decides, where it is known: a correction that was taken back is none.
        corrected = tuple(day for day in sorted(old.keys() & new.keys()) if old[day][-1] != new[day][-1])
        change = TableChange(
            table=table,
            days=(len(old), len(new)),
            added=tuple(sorted(new.keys() - old.keys())),
            removed=tuple(sorted(old.keys() - new.keys())),
            corrected=corrected,
        )
        if change.added or change.removed or change.corrected:
            yield change


def _revisions(known: _Known) -> dict[str, dict[str, tuple[Any, ...]]]:
    if known.inputs is not None:
        return {table: {day: tuple(each) for day, each in days.items()} for table, days in known.inputs.items()}
    assert known.recipe is not None
    tables = {known.facts: known.recipe.facts, **known.recipe.views}
    return {table: {day: (number,) for day, number in days.items()} for table, days in tables.items()}


def _cut(known: _Known) -> dict[str, Any]:
    told = {
        "label cut-off": known.recipe.label_cut_off if known.recipe else None,
        "rows": known.training_set.get("rows"),
        "content": known.training_set.get("content_hash"),
    }
    return {name: value for name, value in told.items() if value is not None}


def _fitted(before: Bundle, after: Bundle) -> Iterator[Pair]:
    for name in sorted(before.fitted.keys() | after.fitted.keys()):
        old, new = before.fitted.get(name), after.fitted.get(name)
        if old != new:
            yield Pair(name=name, before=_entries(old), after=_entries(new))


def _entries(value: Any) -> Any:
    return f"{len(value)} entries" if isinstance(value, list | dict) else value


def _code(bundle: Bundle) -> dict[str, Any]:
    record = bundle.manifest.record
    return {
        "commit": record.commit,
        "uncommitted changes": record.dirty,
        "training code": record.code.get("training"),
    }


def _functions(bundle: Bundle) -> dict[str, Any]:
    """Code versions: a file may differ where nothing does that a model is made of."""
    domain, model = bundle.domain, bundle.model
    parts: dict[str, Any] = {"label": model.label, "requests": domain.requests.of_facts, "rules": model.rules}
    parts |= {f"on-demand {each.name}": each for each in domain.on_demand if each.name in model.on_demand}
    parts |= {f"fitted {each.name}": each for each in domain.fitted if each.name in model.fitted}
    return {name: declaration_version(part) for name, part in parts.items()}


def _files(before: Bundle, after: Bundle) -> Iterator[FileChange]:
    paths = {path for each in (before, after) for path in each.manifest.files if path.startswith(f"{CODE}/")}
    for path in sorted(paths):
        if before.manifest.files.get(path) == after.manifest.files.get(path):
            continue
        old, new = (
            (each.folder / path).read_text().splitlines() if path in each.manifest.files else []
            for each in (before, after)
        )
        yield FileChange(path=path.removeprefix(f"{CODE}/"), **_lines_changed(old, new))


def _lines_changed(old: Sequence[str], new: Sequence[str]) -> dict[str, int]:
    """How many lines were added and removed. Not by `ndiff`, which looks for like lines and takes minutes over it."""
    moved = [
        each for each in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if each[0] != "equal"
    ]
    return {
        "added": sum(end - start for _, _, _, start, end in moved),
        "removed": sum(end - start for _, start, end, _, _ in moved),
    }


def _settings(before: Bundle, after: Bundle, left: _Known, right: _Known) -> Iterator[Pair]:
    for path, old, new in diff(before.manifest, after.manifest):
        if path.partition(".")[0] not in _not_settings:
            yield Pair(name=path, before=old, after=new)
    yield from _pairs(_declared(before, left), _declared(after, right))


def _declared(bundle: Bundle, known: _Known) -> dict[str, Any]:
    """Settings of the training: declared ones, and those a search found."""
    model = bundle.model
    told: dict[str, Any] = {
        "settings": asdict(model.settings),
        "split": asdict(model.split),
        "search": asdict(model.search),
        "label": {"name": model.label.name, "delay": model.label.delay, "classes": model.label.classes},
        "seeds": dict(bundle.manifest.record.seeds),
    }
    # Without a search they are the declared ones, and would be told twice.
    if dict(known.found) != told["settings"]:
        told["found"] = dict(known.found)
    flat = {f"{part}.{name}": _plain(value) for part, values in told.items() for name, value in values.items()}
    return flat | {"simple model": model.simple_features}


def _environment(bundle: Bundle) -> dict[str, Any]:
    record = bundle.manifest.record
    # The same bytes come of any number of cores.
    machine = {name: fact for name, fact in (record.host or {}).items() if name != "cores"}
    return {"lock file": record.lock, "python": record.python, **record.versions, **machine}


def _figures(platform: Platform, before: Bundle, after: Bundle) -> tuple[tuple[Pair, ...], list[str]]:
    told: list[dict[str, float]] = []
    missing = []
    for bundle in (before, after):
        domain, _, model = bundle.manifest.model.partition("/")
        try:
            made = load_evaluation(platform.training(domain, model, bundle.manifest.model_version))
        except DataError:
            missing.append(f"{bundle.manifest.short_digest} was not evaluated here")
            told.append({})
            continue
        figures = {name: each.point for name, each in made.metrics["candidate"].items()}
        told.append({"rows": made.rows, **{name: value for name, value in figures.items() if value is not None}})
    names = list(dict.fromkeys([*told[0], *told[1]]))
    return tuple(Pair(name=name, before=told[0].get(name), after=told[1].get(name)) for name in names), missing


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Pair]:
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Pair(name=name, before=before.get(name), after=after.get(name))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
