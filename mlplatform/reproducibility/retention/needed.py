"""What is needed, and by whom: what live manifests, the answers that are kept, and legal holds refer to.

Asked before anything is removed (`retention`), so where something cannot be known it is taken for needed. Views may be
read by other domains: their answers and their live manifests count as the domain's own.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domains.registered import registered_domains
from mlplatform.features.stage import Revision
from mlplatform.features.tables import Tables, partition_end, stages
from mlplatform.monitoring.log_rows import collected, stored
from mlplatform.monitoring.pickup import instants_by_day, log_files
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import MOVES, Entry, Ledger, standing
from mlplatform.registry.manifest import MANIFEST_FILE, SHORT_DIGITS
from mlplatform.registry.origin import INPUTS_FILE
from mlplatform.reproducibility.retention.holds import Hold, holds
from mlplatform.rollout.approval import approved
from mlplatform.rollout.progress import sent_back
from mlplatform.training.dataset import ROWS_FILE
from mlplatform.training.recipe import input_pins, load_recipe

slack = timedelta(days=1)
"""Around the answers of a day: a publication may take its time, and a repeated answer is as old as the cache lets it
be."""

_first_lines = re.compile(r"^(model|model_version): '?([^\s']+)'?$", re.MULTILINE)
_ever = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one recipe made."""

    model: str
    """Its name in the domain."""

    recipe: str
    manifest: str
    """Digest; empty: nothing was trained of it."""

    folder: Path
    at: datetime
    """When it was made, by the time of its file."""

    rows: int | None
    """Of the training set, where that is still there."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The log of a domain: which of its days stay, and which go."""

    answered: pl.DataFrame
    """`day`, `model`, `manifest`, `rows`: who answered how much when, the shadows too."""

    held: Mapping[str, str]
    """Days beyond their age that stay -> the hold that keeps them."""

    goes: tuple[str, ...]

    @property
    def kept(self) -> pl.DataFrame:
        """`answered` of the days that stay."""
        return self.answered.filter(~pl.col("day").is_in(list(self.goes)))


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What must stay, and why."""

    bundles: Mapping[str, str]
    """Digest -> why."""

    models: Mapping[str, str]
    """Models whose training sets stay, whether something was trained of them or not -> why."""

    revisions: Mapping[str, str]
    """`stage/table/day@number` -> why."""

    every_revision: str
    """Why all of them must stay: what a live manifest was made from cannot be told. Empty: it can."""


def window(platform: Platform, domain: Domain) -> Window:
    """Which days of the log stay by policy and holds of a domain."""
    answered = _answered(platform, domain)
    days = sorted(set(answered.get_column("day")))
    age = domain.reproducibility.retention.predictions
    if age is None:
        return Window(answered=answered, held={}, goes=())
    over = [day for day in days if partition_end(day) + age <= platform.clock()]
    in_force = [each for each in holds(platform, domain) if each.in_force]
    of_day = {day: part for (day,), part in answered.group_by("day")}
    held = {}
    for day in over:
        if keeping := [each for each in in_force if _holds_day(each, day, of_day[day])]:
            held[day] = str(keeping[0])
    return Window(answered=answered, held=held, goes=tuple(day for day in over if day not in held))


def made(platform: Platform, domain: Domain) -> list[Made]:
    """Everything that recipes of a domain's models have made here, also of models that are declared no more."""
    found: list[Made] = []
    for path in sorted(platform.training(domain.name, "", "").glob("*/*/recipe.json")):
        folder = path.parent
        candidate, described = folder / "model.json", folder / "training_set.json"
        newest = next((each for each in (candidate, described) if each.exists()), None)
        if newest is None:
            continue
        found.append(
            Made(
                model=folder.parent.name,
                recipe=folder.name,
                manifest=json.loads(candidate.read_text())["manifest"] if candidate.exists() else "",
                folder=folder,
                at=datetime.fromtimestamp(newest.stat().st_mtime, UTC),
                rows=json.loads(described.read_text())["rows"] if (folder / ROWS_FILE).exists() else None,
            )
        )
    return [*found, *_made_before(platform, domain, {each.manifest for each in found})]


def live(platform: Platform, domain: Domain, log: Window) -> dict[str, str]:
    """Digests that must stay -> why: those that answer or may have to, have answered since, or are held."""
    found: dict[str, str] = {}
    ledger = Ledger(platform)
    for name in ledger.models():
        if name.startswith(f"{domain.name}/"):
            for digest, why in _in_service(name, ledger.entries(name), platform):
                found.setdefault(digest, why)
    last = log.kept.group_by("manifest").agg(pl.col("day").max())
    for digest, day in last.sort("manifest").iter_rows():
        found.setdefault(digest, f"answers of {day}")
    for each in holds(platform, domain):
        if each.in_force and each.kind == "manifest":
            found.setdefault(each.subject, str(each))
        if each.in_force and each.kind == "model":
            for candidate in made(platform, domain):
                if candidate.model == each.subject and candidate.manifest:
                    found.setdefault(candidate.manifest, str(each))
    return found


def needed(platform: Platform, domain: Domain, log: Window, listed: Mapping[str, Revision]) -> Needed:
    """What of a domain must stay.

    Parameters
    ----------
    log : of the domain
    listed : every revision of its stages, as `revisions_of` lists them
    """
    own = live(platform, domain, log)
    logs = [(each, log if each.name == domain.name else window(platform, each)) for each in _readers(domain)]
    roots: dict[str, str] = {}
    unknown = ""
    for reader, read in logs:
        for digest, why in (own if read is log else live(platform, reader, read)).items():
            pinned = pins(platform, reader, domain, digest)
            if pinned is None:
                unknown = unknown or f"nothing tells what {digest[:SHORT_DIGITS]} was made from ({why})"
                continue
            for name in pinned:
                roots.setdefault(name, f"{digest[:SHORT_DIGITS]}: {why}")
    revisions = _goes_back_to(listed, roots)
    for reader, read in logs:
        for name, why in _believed_during(platform, reader, read, listed).items():
            revisions.setdefault(name, why)
    held = {each.subject: str(each) for each in holds(platform, domain) if each.in_force and each.kind == "model"}
    return Needed(bundles=own, models=held, revisions=revisions, every_revision=unknown)


def revisions_of(platform: Platform, domain: Domain) -> dict[str, Revision]:
    """Every revision of the tables of a domain's stages, by `stage/table/day@number`, in the order of the stages."""
    return {
        f"{stage}/{table}/{each.partition}@{each.number}": each
        for stage in stages
        for table, store in Tables(platform, domain).of(stage).items()
        for each in store.revisions()
    }


def superseded_at(listed: Mapping[str, Revision]) -> dict[str, datetime]:
    """When a newer one took the place of a revision; the current ones are not among them."""
    return {
        name: listed[following].known_at
        for name, following in pairwise(listed)
        if name.rpartition("@")[0] == following.rpartition("@")[0]
    }


def pins(platform: Platform, reader: Domain, owner: Domain, digest: str) -> list[str] | None:
    """The revisions of a domain that a manifest was made from, by `stage/table/day@number`; None: nothing tells.

    Parameters
    ----------
    reader : whose model it is
    owner : whose tables are asked for
    """
    told: dict[str, Mapping[str, int]]
    path = platform.bundles / digest / INPUTS_FILE
    if path.exists():
        told = {
            table: {day: number for day, (number, _) in days.items()}
            for table, days in json.loads(path.read_text()).items()
        }
    else:
        folder = next((each.folder for each in made(platform, reader) if each.manifest == digest), None)
        if folder is None or not (folder / "recipe.json").exists():
            return None
        told = input_pins(reader, load_recipe(folder))
    found = []
    for table, days in told.items():
        owning, _, rest = table.partition("/")
        if owning == owner.name:
            # A record calls the facts derived, also where they are those of a source.
            stage, _, name = rest.rpartition("/")
            place = Tables(platform, owner).facts(name).name.partition("/")[2] if stage else f"feature_store/{name}"
            found += [f"{place}/{day}@{number}" for day, number in days.items()]
    return found


def _made_before(platform: Platform, domain: Domain, known: Collection[str]) -> Iterable[Made]:
    """Bundles of recipes that were made anew since, or whose folder is gone: only the store knows them."""
    for path in sorted(platform.bundles.glob(f"[0-9a-f]*/{MANIFEST_FILE}")):
        digest = path.parent.name
        if digest in known:
            continue
        # A manifest has one form, so its lines tell; to parse one takes 20 ms.
        told = dict(_first_lines.findall(path.read_text()))
        owner, _, model = told.get("model", "").partition("/")
        if owner == domain.name:
            recipe = told.get("model_version", "")
            at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            folder = platform.training(domain.name, model, recipe)
            yield Made(model=model, recipe=recipe, manifest=digest, folder=folder, at=at, rows=None)


def _answered(platform: Platform, domain: Domain) -> pl.DataFrame:
    schema = {"day": pl.String(), "model": pl.String(), "manifest": pl.String(), "rows": pl.UInt32()}
    paths = log_files(platform, domain).get_column("path").to_list()
    if not paths:
        return pl.DataFrame(schema=schema)
    day = pl.col("received").dt.date().cast(pl.String).alias("day")
    counted = stored(platform, paths).group_by(day, "model", "manifest").agg(rows=pl.len())
    return collected(platform, counted, paths).sort("day", "model", "manifest")


def _holds_day(held: Hold, day: str, answered: pl.DataFrame) -> bool:
    match held.kind:
        case "model" | "manifest":
            return bool((answered.get_column(held.kind) == held.subject).any())
    assert held.first is not None
    assert held.last is not None
    return held.first <= date.fromisoformat(day) <= held.last


def _in_service(name: str, entries: list[Entry], platform: Platform) -> Iterable[tuple[str, str]]:
    """Who answers, may have to on the next word, or waits for one."""
    now = standing(entries)
    champion = now.champion.to_manifest if now.champion else ""
    if champion:
        yield champion, f"champion of {name}"
    if now.challenger:
        yield now.challenger.to_manifest, f"challenger of {name}"
    champions = [each.to_manifest for each in entries if each.alias == "champion" and each.action in MOVES]
    before = [each for each in reversed(champions) if each != champion]
    away = sent_back(entries)
    for found in (before[:1], [each for each in before if each not in away and (platform.bundles / each).is_dir()][:1]):
        for digest in found:
            yield digest, f"rollback target of {name}"
    for entry in entries:
        waits = entry.to_manifest not in champions and entry.to_manifest not in away
        if entry.action == "approve" and waits and approved(entries, entry.to_manifest):
            yield entry.to_manifest, f"approved for {name}"
        if entry.action == "override" and waits:
            yield entry.to_manifest, f"let in again for {name}"


def _goes_back_to(listed: Mapping[str, Revision], roots: Mapping[str, str]) -> dict[str, str]:
    """The roots, and all that they were made from, by way of the revisions in between."""
    found: dict[str, str] = {}
    todo = list(roots.items())
    while todo:
        name, why = todo.pop()
        # What landed, and what was streamed, is no revision.
        if name in listed and name not in found:
            found[name] = why
            todo += [(each, why) for each in listed[name].inputs]
    return found


def _believed_during(platform: Platform, reader: Domain, log: Window, listed: Mapping[str, Revision]) -> dict[str, str]:
    """Revisions that were believed when one of the answers was given that stay."""
    spans = _spans(platform, reader, log)
    ended = superseded_at(listed)
    found = {}
    for name, each in listed.items():
        until = ended.get(name)
        since = each.known_at
        if each.number == 1 and _is_day(each.partition):
            # Rows of a day that was streamed were told while it was under way.
            since = min(since, partition_end(each.partition) - timedelta(days=1))
        for first, last, why in spans:
            if since <= last and (until is None or first < until):
                found[name] = why
                break
    return found


def _spans(platform: Platform, reader: Domain, log: Window) -> list[tuple[datetime, datetime, str]]:
    """From when until when answers were given, or may be on their way to the log, and what to call them."""
    now = platform.clock()
    at = instants_by_day(platform, reader)
    spans = [(now - slack, now + slack, f"answers of {reader.name} that are given now")]
    for day in sorted(set(log.kept.get_column("day"))):
        first, last = at.get(day, (_ever + 2 * slack, now))
        start, end = min(first, partition_end(day) - timedelta(days=1)) - slack, max(last, partition_end(day)) + slack
        if len(spans) > 1 and start <= spans[-1][1]:
            start, end = min(start, spans[-1][0]), max(end, spans[-1][1])
            day = spans.pop()[2].rpartition(" ")[2]
        why = f"{log.held[day]} and answers of" if day in log.held else f"answers of {reader.name} since"
        spans.append((start, end, f"{why} {day}"))
    return spans


def _readers(domain: Domain) -> list[Domain]:
    """The domain, and those that read its views."""
    others = [each for each in registered_domains().values() if each.name != domain.name]
    return [domain, *(each for each in others if any(view.domain == domain.name for view in each.imported))]


def _is_day(partition: str) -> bool:
    try:
        date.fromisoformat(partition)
    except ValueError:
        return False
    return True
