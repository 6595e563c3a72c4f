"""The platform as the environment describes it, with the S3 client that dagster-aws makes.

A Dagster resource, and what the command line opens too.
"""

from functools import cache
from typing import Any

from mlplatform.provenance.platform import Platform
from mlplatform.settings import Settings, settings


def platform_from_settings() -> Platform:
    """The platform that the environment variables describe."""
    told = settings()
    return Platform(
        home=told.home,
        mlflow_uri=told.mlflow_uri,
        tables=told.tables,
        landings=told.landings,
        online_store=told.online_store,
        storage_options=told.storage_options,
        # One client for all: it is safe to share, and takes 0.3 s to make.
        s3=cache(lambda: s3_client(told)),
    )


def s3_client(told: Settings) -> Any:
    """A client of the S3 that the `AWS_` variables name."""
    from dagster_aws.s3 import S3Resource

    # The other variables it reads by itself; of the region's two names it knows but `AWS_DEFAULT_REGION`.
    return S3Resource(region_name=told.s3_region).get_client()
