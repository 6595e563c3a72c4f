"""The freshness of monitors in Dagster's own terms: what the UI shows beside each asset.

It looks at the clock and at nothing else, so a platform that nobody asks anything turns red too. Whoever is to be told
is told by the loop, which knows which days a monitor could have judged.
"""

from datetime import timedelta
from functools import partial

import dagster as dg

late_after = timedelta(hours=30)
"""From one judgement to the next: a day, the minutes until the day has settled, and a run that is tried again."""


def kept_fresh(asset: dg.AssetsDefinition, every: timedelta = timedelta(days=1)) -> dg.AssetsDefinition:
    """A monitor with its freshness policy: a warning when it is late, a failure when it has missed its turn.

    Parameters
    ----------
    every : how often it judges
    """
    policy = dg.FreshnessPolicy.time_window(fail_window=2 * every, warn_window=every + late_after - timedelta(days=1))
    return asset.map_asset_specs(partial(dg.apply_freshness_policy, policy=policy))
