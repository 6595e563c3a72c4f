"""Feature vectors in the prediction log of a domain, as a gateway would have logged them, without a gateway."""

from datetime import UTC, datetime

import numpy as np

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder, rows_at_once
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform.scoring.booster import Matrix
from mlplatform_tests.fakes.answered import answered


def log_vectors(
    platform: Platform, day: str, vectors: Matrix, *, manifest: str, model: str = "late_order", computed: bool = True
) -> None:
    """Log answers of a day and have them picked up.

    Parameters
    ----------
    vectors : (n, k) float32, NaN where missing, in the order of the manifest
    computed : whether the features could be computed; otherwise only the answers are logged
    """
    noon = int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    segments = Segments(log_folder(platform.home, DOMAIN.name), size=1 << 24, spares=1)
    for start in range(0, len(vectors), rows_at_once):
        part = np.ascontiguousarray(vectors[start : start + rows_at_once], dtype=np.float32)
        batch = answered(
            len(part),
            first=start,
            model=model,
            manifest=manifest,
            at=[noon // 1000] * len(part),
            received=[noon + row for row in range(len(part))],
            features=part.tobytes() if computed else b"",
        )
        assert segments.append(encode(batch), len(part))
    segments.close()
    pick_up(platform, DOMAIN)
