"""The domain battery: what every domain must pass, with the offending row or column named. Knows no Dagster."""
