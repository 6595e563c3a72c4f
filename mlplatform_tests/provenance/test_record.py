"""The reproducibility record: comes back as it went, named by its content."""

import re
from dataclasses import fields, replace

import pytest

from mlplatform.errors import DeclarationError
from mlplatform.provenance.record import Record
from mlplatform.registry.origin import DIFFS, INPUTS_FILE, RECIPE_FILE, TRAINING_FILE, TRAINING_SET_FILE
from mlplatform_tests.docs.page import ROOT
from mlplatform_tests.fakes.tiny_domain import record


def test_comes_back_as_it_went() -> None:
    """A record read from its plain values is the same record, with the same digest."""
    again = Record.from_dict(record().to_dict())
    assert again == record()
    assert again.digest == record().digest


def test_digest_is_of_the_content() -> None:
    """The order of keys does not count; any changed fact does."""
    seeds = {"booster": 1, "search": 2}
    turned = dict(reversed(seeds.items()))
    assert record(seeds=seeds).digest == record(seeds=turned).digest
    assert record(seeds=seeds).digest != record(seeds={"booster": 2, "search": 1}).digest
    assert record(dirty=True).digest != record(dirty=False).digest != record(dirty=None).digest


@pytest.mark.parametrize("change", [{"surplus": 1}, {"lock": ...}])
def test_other_fields_are_refused(change: dict[str, object]) -> None:
    """A record of another version is refused, and the fields are named."""
    values = {**record().to_dict(), **change}
    kept = {name: value for name, value in values.items() if value is not ...}
    with pytest.raises(DeclarationError, match=next(iter(change))):
        Record.from_dict(kept)


def whole() -> Record:
    """A record that says all."""
    return record(
        contents={"harbour/calls": "ff"},
        host={"machine": "x86_64", "system": "Linux", "processor": "P", "cores": "2"},
        checkouts={"mlplatform": {"commit": "aa", "dirty": False}},
        versions={"mlplatform": "1", "polars": "2", "numpy": "3", "xgboost": "4"},
    )


def test_what_an_older_record_lacks_is_left_out() -> None:
    """So it is written as it was, keeps its digest, and is read; a newer one names all."""
    later = {"contents", "host", "checkouts"}
    assert later.isdisjoint(record().to_dict())
    assert later <= whole().to_dict().keys()
    assert Record.from_dict(record().to_dict()).contents is None
    assert Record.from_dict(whole().to_dict()) == whole()


def test_a_whole_record_lacks_nothing() -> None:
    """Nor does one without a commit, as an installed package has none: then its version names the code."""
    assert whole().commit is None
    assert whole().lacking() == []
    versions = {name: version for name, version in whole().versions.items() if name != "mlplatform"}
    assert replace(whole(), commit="aa", versions=versions).lacking() == []
    assert replace(whole(), versions=versions).lacking() == ["version of mlplatform"]


WITHOUT = {
    "inputs": {"inputs": {}},
    "training_set": {"training_set": ""},
    "contents of harbour/calls": {"contents": {}},
    "lock": {"lock": ""},
    "python": {"python": ""},
    "version of mlplatform": {"versions": {"polars": "2", "numpy": "3", "xgboost-cpu": "4"}},
    "version of xgboost": {"versions": {"mlplatform": "1", "polars": "2", "numpy": "3"}},
    "code of training": {"code": {}},
    "configuration": {"configuration": ""},
    "seeds": {"seeds": {}},
    "threads": {"threads": None},
    "host: machine": {"host": {"system": "Linux", "processor": "P", "cores": "2"}},
    "host: gpu": {"device": "cuda"},
    "checkouts": {"checkouts": None},
}


@pytest.mark.parametrize("name", WITHOUT)
def test_what_is_missing_is_named(name: str) -> None:
    """One fact left out, and it is that one."""
    assert replace(whole(), **WITHOUT[name]).lacking() == [name]  # type: ignore[arg-type]  # fields of several types


def test_zero_threads_are_told() -> None:
    """It is what trains with all there are, and no gap."""
    assert replace(whole(), threads=0).lacking() == []


def told_in(heading: str) -> list[str]:
    """First column of the table below a heading of the page about records."""
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    rows = page.partition(f"\n{heading}\n")[2].partition("\n\n")[0].splitlines()
    return [re.findall(r"`([^`]+)`", row)[0] for row in rows if row.startswith("| `")]


def test_every_field_is_told_of() -> None:
    """The page lists the fields of a record, no more and no fewer; so it does with the files beside it."""
    assert sorted(told_in("| field | what it is |")) == sorted(each.name for each in fields(Record))
    beside = {RECIPE_FILE, INPUTS_FILE, TRAINING_SET_FILE, TRAINING_FILE, *DIFFS.values()}
    assert set(told_in("| file | what it holds |")) == beside
