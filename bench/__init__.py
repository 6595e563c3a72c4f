"""Benchmarks: each measures one thing, checks that what it compares gives the same answers, and prints its aims.

`make bench-NAME` runs `bench/NAME.py`. Results worth keeping stand in `bench/README.md`.
"""
