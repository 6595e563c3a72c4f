"""A new domain from a sample file: what the file holds, what is proposed from it, and the package that is written."""
