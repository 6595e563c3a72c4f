"""The feature pipeline: append-only stages, point-in-time joins, views, contracts, online reads."""
