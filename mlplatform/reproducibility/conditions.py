"""What a model is made again under: lock, libraries, machine, device, checkout and code, each beside what is recorded.

None of it is a part of the model. Exactness is promised only where all of it is the same, so whoever finds another
model looks here first; each says what to do to have it as it was.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlplatform.errors import DataError, DeviceUnavailable
from mlplatform.provenance.checkout import Checkout
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.computing import computing
from mlplatform.provenance.environment import host_facts, recorded_versions
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.record import Record
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.origin import DIFFS, Origin, checkouts
from mlplatform.scoring.booster import card_name, check_device
from mlplatform.training.recipe import then_and_now

UNKNOWN = "unknown"

files_named = 3
"""Of a checkout that was edited."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that was compared."""

    name: str
    expected: str
    """As it is recorded."""

    found: str
    same: bool
    note: str = ""
    """What differs, by name, and what to do about it."""

    condition: bool = False
    """Whether it is what the model is made again under, and no part of it."""


def conditions(platform: Platform, bundle: Bundle, origin: Origin) -> list[Step]:
    """What it was made under, each beside what there is now."""
    record, recipe = bundle.manifest.record, origin.recipe
    code = then_and_now(platform, bundle.domain, bundle.model, recipe)
    here = computing()
    host = host_facts() | {name: here[name] for name in ("machine", "libc") if name in here}
    if record.device == "cuda":
        host["gpu"] = card_name() or "none"
    return [
        _condition(
            "lock file",
            record.lock,
            platform.environment,
            "check out the recorded commit and install its lock file (`make setup`); the versions below say what moved",
        ),
        _condition("python", record.python, here["python"], "make the environment anew with the recorded Python"),
        _facts("versions", record.versions, recorded_versions(), "install the recorded lock file"),
        _facts("machine", record.host or {}, host, "another machine may give other last bits"),
        _device(bundle),
        *_checkout_steps(platform, bundle),
        _condition("training code", str(code["training code"][0]), str(code["training code"][1]), _code_note(record)),
        # Of the bundle's own code: another version under the same source tells that versions are computed otherwise.
        _condition(
            "feature code",
            declaration_version(code["declaration"][0], code["views"][0]),
            declaration_version(code["declaration"][1], code["views"][1]),
            "the code in the bundle does not declare what the recipe names: it was trained from another declaration, "
            "or by a Python whose syntax tree reads otherwise",
        ),
    ]


def _condition(name: str, expected: str, found: str, note: str) -> Step:
    same = expected == found
    return Step(name=name, expected=expected, found=found, same=same, note="" if same else note, condition=True)


def _facts(name: str, then: Mapping[str, str], now: Mapping[str, str], note: str) -> Step:
    """Several facts as one step, that names those which differ."""
    other = [key for key in sorted(then) if then[key] != now.get(key)]
    if not other:
        return _condition(name, f"{len(then)} recorded", f"{len(then)} recorded", "")
    before, after = (", ".join(f"{key} {side.get(key, 'not there')}" for key in other) for side in (then, now))
    return Step(name=name, expected=before, found=after, same=False, note=note, condition=True)


def _device(bundle: Bundle) -> Step:
    device = bundle.model.settings.device
    try:
        check_device(device)
    except DeviceUnavailable as error:
        return Step(name="device", expected=device, found="not there", same=False, note=str(error), condition=True)
    return _condition("device", device, device, "")


def _checkout_steps(platform: Platform, bundle: Bundle) -> Iterator[Step]:
    now, record = checkouts(platform, bundle.domain.name), bundle.manifest.record
    # An older record holds that of the platform only.
    recorded = record.checkouts or {"mlplatform": {"commit": record.commit, "dirty": record.dirty}}
    for name, then in recorded.items():
        found = now.get(name, Checkout(commit=None, dirty=None))
        same = (then["commit"], then["dirty"]) == (found.commit, found.dirty)
        same = same and not found.unknown and not then.get("unknown")
        if same and found.dirty:
            same = _same_edits(bundle, then.get("diff"), found)
        yield Step(
            name="checkout" if name == "mlplatform" else "checkout of the domain",
            expected=_told_checkout(then["commit"], then["dirty"]),
            found=_told_checkout(found.commit, found.dirty),
            same=same,
            note="" if same else found.unknown or _checkout_note(name, then, found),
            condition=True,
        )


def _same_edits(bundle: Bundle, kept: object, found: Checkout) -> bool:
    """Whether two edited checkouts of one commit hold the same edits; where nothing was kept, nobody knows."""
    if not isinstance(kept, str):
        return False
    try:
        return found.changes() == (bundle.folder / kept).read_bytes()
    except DataError:  # more than a record holds, so more than this one does
        return False


def _told_checkout(commit: object, dirty: object) -> str:
    return f"{commit or UNKNOWN}{', edited' if dirty else ''}"


def _checkout_note(name: str, then: Mapping[str, object], found: Checkout) -> str:
    if not then["commit"]:
        return "no commit is recorded; the code versions and the installed versions name the code"
    steps = [f"commit or stash the edits{_edited(found)}"] if found.dirty else []
    if found.commit != then["commit"]:
        steps.append(f"`git checkout {then['commit']}`")
    if then["dirty"] and then.get("diff"):
        steps.append(f"`git apply` the bundle's {DIFFS[name]}")
    lost = "; the edits of then were not kept" if then["dirty"] and not then.get("diff") else ""
    return ", then ".join(steps) + lost


def _edited(found: Checkout) -> str:
    """Some of the files."""
    try:
        text = os.fsdecode(found.changes())
    except DataError:  # more than a diff holds
        return ""
    names = re.findall(r'^diff --git .* "?b/(.*?)"?$', text, re.MULTILINE)
    if not names:
        return ""
    more = f" and {len(names) - files_named} more" if len(names) > files_named else ""
    return f" of {', '.join(names[:files_named])}{more}"


def _code_note(record: Record) -> str:
    return (
        "the code that joins, splits, fits and calibrates was changed since; check out "
        + (f"commit {record.commit}" if record.commit else "the version that trained it")
        + " to train by the code of then"
    )
