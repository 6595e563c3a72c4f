"""The release dossier: what one version of a model is, what it was made from, how it was judged, and who let it answer.

For people who must account for a model, years later too: plain words, figures with units, and nothing that no record
says. What is not recorded is said to be not recorded. It is pure: the same records give the same text.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mlplatform.registry.ledger import Entry, broken_at, rolled_back, standing
from mlplatform.rollout.approval import approved
from mlplatform.rollout.dossier_evaluation import METRIC_NAMES, evaluation_lines, gate_lines, words
from mlplatform.rollout.dossier_markdown import (
    MISSING,
    cell,
    code,
    duration,
    facts,
    interval,
    moment,
    number,
    paragraph,
    percent,
    slug,
    table,
    text,
)
from mlplatform.rollout.dossier_origin import (
    change_lines,
    data_lines,
    environment_lines,
    feature_lines,
    training_lines,
)
from mlplatform.rollout.dossier_records import Records
from mlplatform.rollout.plan import WHOLE
from mlplatform.rollout.pointing import plan_of


def dossier(records: Records) -> str:
    """The dossier as Markdown."""
    manifest = records.manifest
    sections = {
        "In short": _in_short(records),
        "What the model does": _what_it_does(records),
        "Data": data_lines(records),
        "Features": feature_lines(records),
        "Training": training_lines(records),
        "Evaluation": evaluation_lines(records.evaluation, records.model),
        "The gate": gate_lines(records.decision, records.passed),
        "Rollout": _rollout(records),
        "Approval": _approval(records),
        "Environment": environment_lines(records),
        "What changed": change_lines(records),
        "The ledger": _ledger(records),
        "Words used here": words(records.model.task),
    }
    lines = [
        f"# Release dossier of {text(manifest.model)}, version {text(manifest.model_version)}",
        "",
        *paragraph(
            "What this version of the model is, what it was made from, how it was judged, and who let it answer",
            f"people. The platform has written it at {moment(records.written_at)} from its records alone; nobody has",
            f"typed anything into it. What no record holds is marked {MISSING}.",
        ),
        "## Contents",
        "",
        *(f"{place}. [{name}](#{slug(name)})" for place, name in enumerate(sections, 1)),
        "",
    ]
    for name, section in sections.items():
        lines += [f"## {name}", "", *section]
    return "\n".join(lines).rstrip("\n") + "\n"


def _in_short(records: Records) -> Iterator[str]:
    manifest, made, candidate = records.manifest, records.promotion, records.candidate
    decision, evaluation = records.decision, records.evaluation
    given = approved(records.entries, manifest.digest)
    metric = records.model.gate.metric
    figure = evaluation.metrics.get("candidate", {}).get(metric) if evaluation else None
    nobody = "nobody, though it is demanded" if _demands_approval(records) else "nobody; it is not demanded"
    yield from facts(
        [
            ("Model", f"{text(manifest.model)}: {text(records.model.meaning)}"),
            ("Version", code(manifest.model_version)),
            ("Manifest", code(manifest.digest)),
            ("Where it stands", _stands(records)),
            ("Made champion", f"{moment(made.at)} by {text(made.actor)}: {text(made.reason)}" if made else "never"),
            ("The gate said", f"**{decision.outcome}**, at {moment(decision.decided_at)}" if decision else MISSING),
            ("Approved of by", f"{text(given.actor)}, {moment(given.at)}" if given else nobody),
            (f"Its {text(METRIC_NAMES.get(metric, metric))}", interval(figure)),
            ("Trained on", number(candidate.rows.get("train") if candidate else None, "cases")),
            ("Champion before", code(records.previous) if records.previous else "none: it is the first"),
            ("Answerable", ", ".join(map(text, records.domain.owners)) or MISSING),
        ]
    )


def _stands(records: Records) -> str:
    digest, now = records.manifest.digest, standing(records.entries)
    if now.champion and now.champion.to_manifest == digest:
        return f"the champion since {moment(now.champion.at)}"
    if now.challenger and now.challenger.to_manifest == digest:
        return f"the challenger, {_traffic(now.mode, now.weight)}, since {moment(now.challenger.at)}"
    sent_back = [each for each in records.entries if rolled_back(each) == digest]
    if sent_back:
        last = sent_back[-1]
        return f"rolled back at {moment(last.at)} by {text(last.actor)}: {text(last.reason)}"
    return "it was the champion, another one is now" if records.promotion else "not promoted"


def _what_it_does(records: Records) -> Iterator[str]:
    label, manifest = records.model.label, records.manifest
    rows = [
        ("What is predicted", f"{text(label.name)}: {text(label.meaning)}"),
        ("Kind of answer", text(manifest.output)),
        ("Known after", f"{duration(label.delay)} for almost every case"),
    ]
    if manifest.decision is not None:
        rows.append(("It says yes from", f"{manifest.decision:g} on: {text(manifest.decision_reason)}"))
    if manifest.review_below is not None:
        seen = f"below a confidence of {manifest.review_below:g}: {text(manifest.review_reason)}"
        rows.append(("A person should look", seen))
    tiers = [text(each.replace("_", " ")) for each in manifest.serving.get("tiers", ())]
    rows += [
        ("When the model cannot answer", ", then ".join(tiers) or MISSING),
        ("Objective: 99 of 100 rows scored in", number(manifest.objectives.get("p99_ms"), "ms")),
        ("Objective: rows scored in a second", number(manifest.objectives.get("rows_per_second"))),
    ]
    yield from facts(rows)


def _rollout(records: Records) -> Iterator[str]:
    declared = records.model.rollout
    if declared is None:
        yield from paragraph("The model declares no rollout: what passes the gate becomes champion at once.")
    else:
        yield from paragraph(
            f"Declared: {text(declared.mode)}. A version that does no harm is rolled back with a probability of at",
            f"most {declared.error.value:g}: {text(declared.error.reason)}. One that is worse by the margin takes a",
            f"step with a probability of at most {declared.doubt.value:g}: {text(declared.doubt.reason)}.",
        )
        yield from table(
            ("step", "share of the keys", "kept at least"),
            [
                (str(place), percent(each.share) if each.share else "0 % (shadow)", duration(each.bake))
                for place, each in enumerate(declared.steps, 1)
            ],
            figures=(0, 1),
        )
    digest = records.manifest.digest
    steps = [
        each
        for each in records.entries
        if each.action not in ("promote", "approve") and digest in (each.to_manifest, rolled_back(each))
    ]
    if not steps:
        yield from paragraph("No step of a rollout is recorded for this version.")
        return
    yield from table(
        ("entry", "at", "what", "traffic", "plan", "by", "reason"),
        [
            (
                *_what_happened(each),
                _traffic(str(each.evidence["mode"]), int(each.evidence["weight"]))
                if {"mode", "weight"} <= each.evidence.keys()
                else "–",
                cell(_plan(records, each)),
                text(each.actor),
                text(each.reason),
            )
            for each in steps
        ],
        figures=(0,),
    )
    for each in steps:
        looked_at = {name: value for name, value in each.evidence.items() if name not in ("mode", "weight", "plan")}
        if looked_at:
            yield from (f"### Evidence of entry {each.number}, {text(each.action.replace('_', ' '))}", "")
            yield from _evidence(looked_at)


def _plan(records: Records, entry: Entry) -> str | None:
    """Version of the plan from an event on: as it was recorded, else what follows from the ledger up to there."""
    if "plan" in entry.evidence:
        return str(entry.evidence["plan"])
    plan = plan_of(records.manifest.model, records.entries[: entry.number])
    return plan.version if plan else None


def _evidence(evidence: Mapping[str, Any]) -> Iterator[str]:
    """What a step was decided on: single figures in one table, and each list of findings in one of its own."""
    findings = {
        name: found
        for name, found in evidence.items()
        if isinstance(found, list) and found and all(isinstance(each, Mapping) for each in found)
    }
    if single := [(text(name), cell(value)) for name, value in evidence.items() if name not in findings]:
        yield from table(("what", "value"), single)
    for name, found in findings.items():
        named = dict.fromkeys(column for each in found for column in each)
        counted = {column for column in named if any(isinstance(each.get(column), int | float) for each in found)}
        columns = sorted(named, key=lambda column: column in counted)  # what it is of, then the figures
        yield from paragraph(f"{text(name)}:")
        yield from table(
            [text(column) for column in columns],
            [[cell(each.get(column)) for column in columns] for each in found],
            figures=[place for place, column in enumerate(columns) if column in counted],
        )


def _approval(records: Records) -> Iterator[str]:
    digest = records.manifest.digest
    demands = "demands" if _demands_approval(records) else "does not demand"
    yield from paragraph(f"The model {demands} that a named person approves of a version before it answers people.")
    given = [each for each in records.entries if each.action == "approve" and each.to_manifest == digest]
    if not given:
        yield from paragraph("No approval of this version is recorded.")
        return
    in_force = approved(records.entries, digest)
    yield from table(
        ("entry", "at", "by", "reason", "in force"),
        [
            (
                str(each.number),
                moment(each.at),
                text(each.actor),
                text(each.reason),
                "yes" if each == in_force else "no: given anew, or void by a rollback",
            )
            for each in given
        ],
        figures=(0,),
    )


def _demands_approval(records: Records) -> bool:
    return records.model.rollout is not None and records.model.rollout.approval


def _ledger(records: Records) -> Iterator[str]:
    entries = records.entries
    if not entries:
        yield from paragraph(f"Entries of this model: {MISSING}.")
        return
    broken, last = broken_at(entries), entries[-1].hash
    whole = "no entry was changed or left out" if broken is None else f"**entry {broken} is not as it was written**"
    yield from paragraph(
        f"When this was written the ledger of the model had {number(len(entries))} entries; {whole}. The hash of the",
        f"last one is {code(last)}. Whether the ledger still holds what it stood for is told by this command:",
    )
    yield from ("```text", f"mlplatform ledger verify {records.manifest.model} --holds {last}", "```", "")
    yield from table(
        ("entry", "at", "what", "version", "by", "reason"),
        [
            (
                *_what_happened(each),
                "this one" if each.to_manifest == records.manifest.digest else code(each.to_manifest[:12]),
                text(each.actor),
                text(each.reason),
            )
            for each in entries
        ],
        figures=(0,),
    )


def _what_happened(entry: Entry) -> tuple[str, str, str]:
    return str(entry.number), moment(entry.at), text(entry.action.replace("_", " "))


def _traffic(mode: str, weight: int) -> str:
    if mode in ("canary", "a/b"):
        return f"{text(mode)}, {100 * weight / WHOLE:g} % of the keys"
    return {"shadow": "shadow: it answers nobody", "": "not started"}.get(mode, text(mode))
