"""The landing bucket: one object per day under a prefix of an S3 bucket.

An object is there as a whole or not at all, so nothing is waited for. The version of a day is its ETag, which S3 tells
in the listing and again with the bytes: what is read is what was listed, or is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import polars as pl

from mlplatform.domain.source import Bucket
from mlplatform.errors import ChangedWhileRead, Unavailable
from mlplatform.features.landing.files import by_name, files_of, is_temporary, parsed, refuse_two


class LandingBucket:
    """Landed days of one source in a bucket.

    Parameters
    ----------
    place : the bucket, and the prefix of the source's objects
    client : gives the S3 client; called when it is first needed
    """

    def __init__(self, place: Bucket, client: Callable[[], Any]) -> None:
        self._place = place
        self._client = client

    def list(self) -> Mapping[str, str]:
        """Name without suffix -> ETag, and folders; what is hidden or temporary is left out.

        Raises
        ------
        Unavailable
            The bucket cannot be read.
        """
        return by_name(each for each in self._objects("") if not is_temporary(each[0]))

    def read(self, day: str, version: str) -> pl.DataFrame:
        """Rows of a day's object."""
        files = [file for file, _ in self._objects(f"{day}.") if file in files_of(day)]
        refuse_two(files, str(self._place), version)
        gone = ChangedWhileRead(f"{self._place}/{day}", "has gone")
        if not files:
            raise gone
        path = f"{self._place}/{files[0]}"
        with self._reachable():
            client = self._client()
            try:
                answer = client.get_object(Bucket=self._place.bucket, Key=self._key(files[0]))
            except client.exceptions.NoSuchKey as error:
                raise gone from error
            content: bytes = answer["Body"].read()
        if _tag(answer) != version:
            raise ChangedWhileRead(path, "was landed again")
        return parsed(content, path)

    def write(self, file: str, content: bytes) -> str:
        """Put an object there, whole; returns its address."""
        with self._reachable():
            self._client().put_object(Bucket=self._place.bucket, Key=self._key(file), Body=content)
        return f"{self._place}/{file}"

    def _objects(self, start: str) -> Iterator[tuple[str, str]]:
        """Names that begin so and their ETags; what lies below a folder is told by the folder's name."""
        prefix = self._key(start)
        folder = self._key("")
        with self._reachable():
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._place.bucket, Prefix=prefix, Delimiter="/"):
                for each in page.get("Contents", ()):
                    # What makes a folder of the prefix in some consoles is an object without a name.
                    if name := each["Key"].removeprefix(folder):
                        yield name, _tag(each)
                for each in page.get("CommonPrefixes", ()):
                    yield each["Prefix"].removeprefix(folder), ""

    def _key(self, file: str) -> str:
        return "/".join([*filter(None, [self._place.prefix.strip("/")]), file])

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(
                f"{self._place} cannot be reached ({error}). Make the bucket, or correct its name, AWS_ENDPOINT_URL or "
                "the credentials"
            ) from error


def _tag(described: Mapping[str, Any]) -> str:
    return str(described["ETag"]).strip('"')
