"""Landed days: what the sources of a domain have sent, wherever they send it."""
