"""Reproducibility: any prediction replayed, any model made again, and the promise checked every night."""
