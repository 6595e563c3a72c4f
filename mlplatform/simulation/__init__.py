"""Recorded days as live traffic: the platform driven on a simulated clock."""
