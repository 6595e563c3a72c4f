"""The part of a dossier that says what a version was made from: data, features, training, environment."""

from collections.abc import Iterator
from typing import Any

from mlplatform.domain.view import Feature, FeatureView, ImportedView
from mlplatform.provenance.record import Record
from mlplatform.registry.manifest import diff
from mlplatform.rollout.dossier_markdown import (
    MISSING,
    cell,
    code,
    duration,
    facts,
    number,
    paragraph,
    percent,
    table,
    text,
)
from mlplatform.rollout.dossier_records import Records


def data_lines(records: Records) -> Iterator[str]:
    """Days, revisions, what the contracts kept and refused, the training set."""
    if records.recipe is None:
        yield from paragraph(f"The recipe: {MISSING}.")
    else:
        yield from paragraph(
            f"Days before {records.recipe.as_of} (UTC), labels that were available by",
            f"{text(records.recipe.label_cut_off)}. Every day of a table is kept in revisions that nobody overwrites:",
            "revision 1 is what came first, a higher one a correction. The model was made from these:",
        )
        yield from _tables(records)
    yield from ("### The contract", "")
    if records.contracts:
        yield from paragraph(
            "Rows of those days that kept the contract of their source, and rows that it refused and that lie in",
            "quarantine, as was known when the gate decided:",
        )
        yield from table(
            ("source", "days", "rows kept", "rows refused"),
            [
                (text(each.source), number(each.days), number(each.kept), number(each.refused))
                for each in records.contracts
            ],
            figures=(1, 2, 3),
        )
    else:
        yield from paragraph(f"What the contract kept and refused: {MISSING}.")
    yield from ("### The training set", "")
    described = records.training_set
    if described is None:
        yield from paragraph(f"The training set: {MISSING}.")
        return
    yield from facts(
        [
            ("Cases with a label", number(described.get("rows"))),
            ("Past requests that never get a label", number(described.get("unlabelled"))),
            (
                "Feature values that were corrected since they could have been served",
                number(described.get("differing_values")),
            ),
            ("Content (digest)", code(described.get("content_hash", ""))),
        ]
    )


def feature_lines(records: Records) -> Iterator[str]:
    """Every input with its meaning, by where it comes from."""
    domain, model, manifest = records.domain, records.model, records.manifest
    yield from paragraph(
        f"{number(len(manifest.features))} inputs, in this order: {', '.join(map(text, manifest.features))}."
    )
    for reference in model.views:
        owner, view = domain.view(reference)
        label = f"{owner}/{view.name}"
        yield from (f"### View {text(label)}", "")
        yield from paragraph(*_view(view, manifest.views.get(label)))
        yield from _feature_table(records, view.features)
    for name, each in ((name, each) for name in model.on_demand for each in domain.on_demand if each.name == name):
        yield from (f"### From the request: {text(name)}", "", text(f"{each.meaning}."), "")
        yield from _feature_table(records, each.features)
    for name, value in ((name, each) for name in model.fitted for each in domain.fitted if each.name == name):
        yield from (f"### Learned from the training cases: {text(name)}", "", text(f"{value.meaning}."), "")
        yield from _feature_table(records, value.features)


def training_lines(records: Records) -> Iterator[str]:
    """Windows, settings, calibration, seeds."""
    made, record = records.candidate, records.manifest.record
    if made is None:
        yield from paragraph(f"Windows, settings and calibration: {MISSING}.")
    else:
        windows = {**made.windows, "train": made.windows.get("training", "")}
        yield from table(
            ("part", "cases", "asked between (UTC)"),
            [(text(part), number(rows), text(windows.get(part, ""))) for part, rows in made.rows.items()],
            figures=(1,),
        )
        searched = (
            f"the best of {number(len(made.trials))} tried" if made.trials else "as declared, no others were tried"
        )
        yield from paragraph(f"Settings of XGBoost: {searched}.")
        yield from table(("setting", "value"), [(text(name), cell(value)) for name, value in made.settings.items()])
        kept = "kept" if made.calibrated else "not kept"
        yield from paragraph(f"Calibration of the scores: {kept}; {text(made.calibration_reason)}.")
    yield from facts(
        [
            ("Seeds", ", ".join(f"{text(name)} {seed}" for name, seed in record.seeds.items()) or MISSING),
            ("Threads in training", number(record.threads)),
            ("Device", text(record.device)),
            ("Declared settings (digest)", code(record.configuration)),
        ]
    )


def environment_lines(records: Records) -> Iterator[str]:
    """Lock file, versions, machine, checkouts, code, files."""
    record = records.manifest.record
    yield from facts(
        [
            ("Lock file (digest)", code(record.lock)),
            ("Python", text(record.python)),
            *((text(library), text(version)) for library, version in record.versions.items()),
            *_checkouts(record),
            *((f"Code of {text(what)} (digest)", code(version)) for what, version in record.code.items()),
            ("Training set (digest)", code(record.training_set) if record.training_set else MISSING),
        ]
    )
    yield from ("### The machine that trained it", "")
    if record.host:
        yield from facts([(text(fact), text(value)) for fact, value in record.host.items()])
    else:
        yield from paragraph(f"The machine: {MISSING}.")
    yield from paragraph(
        f"`mlplatform reproduce {records.manifest.model}@{records.manifest.model_version}` makes it again from what is",
        "recorded here, and says where the first difference is.",
    )
    yield from ("### Files of the bundle", "")
    yield from table(
        ("file", "SHA-256"), [(text(path), code(digest)) for path, digest in sorted(records.manifest.files.items())]
    )


def _checkouts(record: Record) -> Iterator[tuple[str, str]]:
    """Commit and uncommitted changes of each checkout that trained it; an older record tells of one."""
    told = record.checkouts or {"mlplatform": {"commit": record.commit, "dirty": record.dirty}}
    for name, each in told.items():
        of = "" if name == "mlplatform" else f" of the {text(name)}"
        kept = f", kept in the bundle as {text(each['diff'])}" if each.get("diff") else ", and they were not kept"
        edited = f"yes: the commit alone does not give this code back{kept}"
        yield f"Git commit{of}", code(each["commit"]) if each["commit"] else MISSING
        yield (
            f"Changes beside the commit{of}",
            MISSING if each["dirty"] is None else edited if each["dirty"] else "none",
        )


def change_lines(records: Records) -> Iterator[str]:
    """What the manifest says otherwise than that of the champion before."""
    if records.previous is None:
        yield from paragraph("There was no champion before it.")
        return
    before = records.previous_manifest
    if before is None:
        yield from paragraph(f"The manifest of the champion before it, {code(records.previous)}: {MISSING}.")
        return
    yield from paragraph(f"Against the champion before it, {text(before.model_version)}, {code(before.digest)}:")
    yield from table(
        ("what the manifest says of", "before", "now"),
        [(text(path), *_sides(left, right)) for path, left, right in diff(before, records.manifest)],
    )


def _tables(records: Records) -> Iterator[str]:
    yield from table(
        ("table", "days", "from", "to", "rows", "corrected days", "revisions (digest)", "content (digest)"),
        [
            (
                text(each.name),
                number(len(each.days)),
                min(each.days, default="–"),
                max(each.days, default="–"),
                number(each.rows),
                number(sum(revision > 1 for revision in each.days.values())),
                code(each.revisions) if each.revisions else MISSING,
                code(each.content) if each.content else MISSING,
            )
            for each in records.tables
        ],
        figures=(1, 4, 5),
    )
    corrected = [
        f"{text(each.name)} {day} (revision {revision})"
        for each in records.tables
        for day, revision in sorted(each.days.items())
        if revision > 1
    ]
    if corrected:
        yield from paragraph(f"Corrected before the training: {', '.join(corrected)}.")


def _view(view: FeatureView | ImportedView, version: str | None) -> Iterator[str]:
    yield f"Version {code(version)}." if version else f"Version: {MISSING}."
    if isinstance(view, FeatureView):
        yield f"{text(view.meaning)}."
        yield f"Computed from the {duration(view.look_back)} before it is published; a value is used for at most"
        yield f"{duration(view.ttl)}."
    else:
        yield "It is a view of another domain, where its meaning is declared."


def _feature_table(records: Records, features: tuple[Feature, ...]) -> list[str]:
    share = records.candidate.importance if records.candidate else {}
    return table(
        ("feature", "meaning", "unit", "range", "share of the gain"),
        [
            (text(each.name), text(each.meaning), cell(each.unit), _range(each), percent(share.get(each.name)))
            for each in features
        ],
        figures=(4,),
    )


def _range(feature: Feature) -> str:
    if feature.minimum is None and feature.maximum is None:
        return "–"
    low, high = ("any" if end is None else f"{end:g}" for end in (feature.minimum, feature.maximum))
    return f"{low} to {high}"


def _sides(left: Any, right: Any) -> tuple[str, str]:
    """Both sides of a difference; of two lists only what one has and the other lacks, if that is the difference."""
    if isinstance(left, list) and isinstance(right, list):
        gone, new = [each for each in left if each not in right], [each for each in right if each not in left]
        if gone or new:
            return f"without now: {cell(gone)}" if gone else "–", f"new: {cell(new)}" if new else "–"
    return cell(left), cell(right)
