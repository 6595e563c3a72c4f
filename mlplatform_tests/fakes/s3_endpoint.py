"""A real S3 endpoint over files on disk, on a free loopback port, stopped by its process id."""

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.features.resources import s3_client
from mlplatform.settings import settings
from mlplatform_tests.fakes.waiting import until


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be told to use it; no credentials are checked, but the libraries want some."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "eu-central-1",
        }


@dataclass(frozen=True)
class Held:
    """A bucket of one's own, and a client as the platform makes it."""

    bucket: str
    client: Any

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def remove(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def holds(self) -> list[str]:
        """What is in it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]


def empty_bucket() -> Held:
    """A new bucket on the endpoint that the environment names."""
    client = s3_client(settings())
    bucket = f"test-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return Held(bucket, client)


@contextmanager
def s3_endpoint(folder: Path) -> Iterator[Endpoint]:
    """`localbucket` with its buckets in a folder."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "localbucket", "--port", str(port), str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the endpoint did not start:\n{log.read_text()}")
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers, seconds=30, what="the S3 endpoint")
        yield Endpoint(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)
