"""The reproducibility record: comes back as it went, named by its content."""

import pytest

from mlplatform.errors import DeclarationError
from mlplatform.provenance.record import Record
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
