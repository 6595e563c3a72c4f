"""What was made from what: content hashes, code versions, the reproducibility record."""
