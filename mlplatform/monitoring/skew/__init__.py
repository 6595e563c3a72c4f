"""Training-serving skew of the days of a domain."""
