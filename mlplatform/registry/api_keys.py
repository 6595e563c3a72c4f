"""The API keys: who may ask for predictions or send facts, and how often.

A key is 256 random bits, shown once when it is made; what is kept is its SHA-256. A slow hash, as passwords need, would
add nothing: nobody can try 2^256 values, and every request would pay for it.

They stand in one JSON file, readable by its owner only and replaced in one step, so that a reader sees the old list or
the new one. It refuses to forget: a revoked key stays listed, since the prediction log names it.
"""

import fcntl
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from mlplatform.errors import DeclarationError, KeysUnreadable, UnknownApiKey

logger = logging.getLogger(__name__)

TOKEN = re.compile(rb"mlp_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
"""A key as it is sent: its id, which is no secret, and the secret. The prefix lets scanners find one that leaked."""

LOOK_AGAIN = 1.0
"""Seconds after which a reader looks whether the file has changed: how long a revoked key can still be used."""

Right = Literal["predictions", "facts"]
"""What a key may be used for: to ask, or to send facts, which change what everybody is answered."""

_nobody = bytes(32)


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """One key, without its secret."""

    id: str
    name: str
    """Whose it is, for people."""

    sha256: str
    """Of the whole token, as hexadecimal digits."""

    created: datetime
    revoked: datetime | None = None
    requests_per_minute: int | None = None
    """None: as many as the service can answer."""

    may: tuple[Right, ...] = ("predictions",)
    """Whoever asks for predictions is not trusted with the facts that they are made from unless somebody says so. Keys
    from before there was a choice may ask too."""


def keys_folder(home: Path) -> Path:
    """Where the keys of a platform lie."""
    return home / "access"


class ApiKeys:
    """The keys of a folder: made, listed and revoked by a person, looked up by every request.

    Parameters
    ----------
    folder : holds `keys.json`; made when the first key is
    now : the time that is written down
    clock : seconds; says when to look again for changes
    """

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = folder / "keys.json"
        self._now = now
        self._clock = clock
        self._usable: dict[bytes, tuple[bytes, ApiKey]] = {}
        self._seen: tuple[int, ...] | None = None
        self._look_at = -float("inf")

    def create(
        self, name: str, *, requests_per_minute: int | None = None, may: Sequence[Right] = ("predictions",)
    ) -> tuple[str, str]:
        """Make a key.

        Returns
        -------
        its id, and the token to send, which nobody can tell again

        Raises
        ------
        DeclarationError
            The name, the limit or the rights cannot be.
        KeysUnreadable
            The file is damaged; nothing was changed.
        """
        if not 1 <= len(name) <= 64 or not name.isprintable() or name != name.strip():
            raise DeclarationError(f"{name!r} is no name for a key. Take 1 to 64 characters that tell whose it is")
        if requests_per_minute is not None and requests_per_minute < 1:
            raise DeclarationError(f"{requests_per_minute} requests per minute is no limit. Revoke the key instead")
        if not may:
            raise DeclarationError("a key that may do nothing is none. Let it ask for predictions, or send facts")
        with self._changing() as keys:
            taken = {key.id for key in keys}
            key_id = next(told for told in iter(lambda: secrets.token_hex(4), "") if told not in taken)
            token = f"mlp_{key_id}_{secrets.token_urlsafe(32)}"
            keys.append(
                ApiKey(
                    id=key_id,
                    name=name,
                    sha256=sha256(token.encode()).hexdigest(),
                    created=self._now(),
                    requests_per_minute=requests_per_minute,
                    may=tuple(sorted(set(may))),
                )
            )
        return key_id, token

    def listed(self) -> list[ApiKey]:
        """Every key there ever was, oldest first.

        Raises
        ------
        KeysUnreadable
            The file is damaged, or may not be read by this user.
        """
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=list[ApiKey])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise KeysUnreadable(str(self._file), str(error)) from error

    def revoke(self, key_id: str) -> ApiKey:
        """End a key: readers refuse it within a second. One that is revoked already stays as it is.

        Raises
        ------
        UnknownApiKey
            There is no such key.
        KeysUnreadable
            The file is damaged; nothing was changed.
        """
        with self._changing() as keys:
            place = next((number for number, key in enumerate(keys) if key.id == key_id), None)
            if place is None:
                raise UnknownApiKey(key_id)
            if keys[place].revoked is None:
                keys[place] = replace(keys[place], revoked=self._now())
        return keys[place]

    def find(self, token: bytes) -> ApiKey | None:
        """The key that a request brings, if it may be used: about 2 µs.

        A list that cannot be read changes nothing here, and the log says so: better that whom we knew goes on than that
        everybody is shut out by a slip.
        """
        if self._clock() >= self._look_at:
            self._look()
        told = TOKEN.fullmatch(token)
        if told is None:
            return None
        digest, key = self._usable.get(told[1], (_nobody, None))
        return key if hmac.compare_digest(digest, sha256(token).digest()) else None

    def _look(self) -> None:
        """Read the file again if it is another one than last time."""
        self._look_at = self._clock() + LOOK_AGAIN
        try:
            found = self._file.stat()
        except FileNotFoundError:
            self._usable, self._seen = {}, None
            return
        except OSError as error:
            logger.error("%s", KeysUnreadable(str(self._file), str(error)))
            return
        # The inode too: two changes may fall into one tick of the file system's clock.
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            keys = self.listed()
        except KeysUnreadable as error:
            logger.error("%s", error)
            return
        self._usable = {key.id.encode(): (bytes.fromhex(key.sha256), key) for key in keys if key.revoked is None}

    @contextmanager
    def _changing(self) -> Iterator[list[ApiKey]]:
        """The keys, to be changed in place; written at the end. Two that change them wait for each other."""
        folder = self._file.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(folder / "keys.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.listed()
            yield keys
            draft = folder / f"keys.{os.getpid()}.draft"
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._file)
