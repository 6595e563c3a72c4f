"""Replay: an old answer given again, its trail, and the first thing that differs."""
