"""The API keys: what is kept of them, who sees a change when, and two who change them at once."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform.errors import DeclarationError, KeysUnreadable, UnknownApiKey
from mlplatform.registry.api_keys import LOOK_AGAIN, ApiKeys

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Seconds:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def keys_in(folder: Path, clock: Seconds | None = None) -> ApiKeys:
    """The keys of a folder, the wall clock standing still."""
    return ApiKeys(folder, now=lambda: NOW, clock=clock or Seconds())


def test_a_key_is_found_by_its_token_only_and_the_token_is_kept_nowhere(tmp_path: Path) -> None:
    """The file is the owner's alone and holds no part of the secret; one character off is another token."""
    keys = keys_in(tmp_path / "access")
    key_id, token = keys.create("shop front", requests_per_minute=60)
    _, other = keys.create("batch job")
    found = keys.find(token.encode())
    assert found is not None
    assert (found.id, found.name, found.requests_per_minute, found.created) == (key_id, "shop front", 60, NOW)
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    mixed = other[:13] + token[13:]
    for wrong in (changed, mixed, token + "A", token.upper(), "", f"mlp_{key_id}_", token[13:]):
        assert keys.find(wrong.encode()) is None, wrong
    for file in (tmp_path / "access").iterdir():
        assert token[13:].encode() not in file.read_bytes()
    assert (tmp_path / "access" / "keys.json").stat().st_mode & 0o777 == 0o600


def test_the_hash_is_of_the_whole_token(tmp_path: Path) -> None:
    """A stored hash is no token: whoever reads the file cannot ask with what stands in it."""
    keys = keys_in(tmp_path)
    keys.create("shop")
    (key,) = keys.listed()
    assert keys.find(f"mlp_{key.id}_{key.sha256[:43]}".encode()) is None


def test_a_key_may_ask_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    """Facts only where somebody said so; a key that was stored before there was a choice goes on asking."""
    keys = keys_in(tmp_path)
    keys.create("shop")
    keys.create("courier", may=["facts"])
    keys.create("both", may=["predictions", "facts", "facts"])
    assert [key.may for key in keys.listed()] == [("predictions",), ("facts",), ("facts", "predictions")]
    with pytest.raises(DeclarationError, match="may do nothing"):
        keys.create("neither", may=[])
    stored = json.loads((tmp_path / "keys.json").read_bytes())
    del stored[0]["may"]
    (tmp_path / "keys.json").write_text(json.dumps(stored))
    assert keys.listed()[0].may == ("predictions",)


def test_a_running_reader_sees_changes_within_a_second_and_not_before_it_looks(tmp_path: Path) -> None:
    """A key made or revoked by another process; the file is looked at once a second, not with every request."""
    clock, keys = Seconds(), keys_in(tmp_path)
    reader = keys_in(tmp_path, clock)
    assert reader.find(b"") is None
    key_id, token = keys.create("shop")
    assert reader.find(token.encode()) is None
    clock.now += LOOK_AGAIN
    assert reader.find(token.encode()) is not None
    keys.revoke(key_id)
    clock.now += LOOK_AGAIN / 2
    assert reader.find(token.encode()) is not None
    clock.now += LOOK_AGAIN / 2
    assert reader.find(token.encode()) is None


def test_a_revoked_key_stays_listed_with_the_time_of_its_end(tmp_path: Path) -> None:
    """The prediction log names it. Revoked twice, the first time stays."""
    keys = keys_in(tmp_path)
    first, _ = keys.create("shop")
    second, _ = keys.create("shop")
    keys.revoke(first)
    ApiKeys(tmp_path, now=lambda: NOW.replace(year=2027)).revoke(first)
    assert [(key.id, key.revoked) for key in keys.listed()] == [(first, NOW), (second, None)]
    with pytest.raises(UnknownApiKey, match="keys list"):
        keys.revoke("00000000")


def test_two_who_make_keys_at_once_lose_none(tmp_path: Path) -> None:
    """They wait for each other."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: keys_in(tmp_path).create(f"job {number}"), range(32)))
    keys = keys_in(tmp_path)
    assert {key.id for key in keys.listed()} == {key_id for key_id, _ in made}
    assert all(keys.find(token.encode()) for _, token in made)


def test_a_damaged_file_shuts_nobody_out_and_is_not_written_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whom the reader knew goes on, with a line in the log; a change is refused."""
    clock = Seconds()
    keys = keys_in(tmp_path, clock)
    _, token = keys.create("shop")
    assert keys.find(token.encode())
    (tmp_path / "keys.json").write_bytes(b'[{"id": "0')
    clock.now += LOOK_AGAIN
    with caplog.at_level(logging.ERROR):
        assert keys.find(token.encode())
    assert "keys.json" in caplog.text and token not in caplog.text
    with pytest.raises(KeysUnreadable):
        keys.create("another")
    assert (tmp_path / "keys.json").read_bytes() == b'[{"id": "0'


def test_without_the_file_nobody_has_a_key(tmp_path: Path) -> None:
    """Taking it away takes every key away."""
    clock = Seconds()
    keys = keys_in(tmp_path, clock)
    _, token = keys.create("shop")
    assert keys.find(token.encode())
    (tmp_path / "keys.json").unlink()
    clock.now += LOOK_AGAIN
    assert keys.find(token.encode()) is None


@pytest.mark.parametrize("name", ["", "a" * 65, "shop\nfront", " shop"])
def test_a_name_that_tells_nothing_is_refused(name: str, tmp_path: Path) -> None:
    """It stands in lists and logs, on one line."""
    with pytest.raises(DeclarationError):
        keys_in(tmp_path).create(name)
    assert not tmp_path.joinpath("keys.json").exists()
