"""Answers of any age, version, arm and tier in the prediction log of a domain, without a gateway."""

from datetime import UTC, datetime

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform_tests.fakes.answered import answered


def log_answers(
    platform: Platform,
    day: str,
    rows: int,
    *,
    manifest: str = "a" * 64,
    model: str = "late_order",
    arm: str = "champion",
    source: str = "model",
    name: str = "",
) -> None:
    """Log answers of a day's noon, named by day, manifest, arm and tier, and have them picked up in a file of theirs.

    Parameters
    ----------
    name : in the ids, so that more can be logged of the same
    """
    noon = int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    batch = answered(
        rows,
        model=model,
        manifest=manifest,
        model_version=f"2024-01-01-{manifest[:8]}",
        arm=[arm] * rows,
        source=[source] * rows,
        at=[noon // 1000] * rows,
        received=[noon + 1000 * row for row in range(rows)],
        request_id=[f"{day}-{manifest[:3]}-{arm}-{source}{name}-{row}" for row in range(rows)],
    )
    segments = Segments(log_folder(platform.home, DOMAIN.name), size=1 << 24, spares=1)
    assert segments.append(encode(batch), rows)
    segments.close()
    pick_up(platform, DOMAIN)
