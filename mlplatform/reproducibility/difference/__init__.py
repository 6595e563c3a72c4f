"""Difference: what changed between two versions, and whose answers that moves."""
