"""Retention: what goes by policy, what stays and why, and what is held."""
