"""Alerts: what monitors have found, told once to those whom it concerns."""
