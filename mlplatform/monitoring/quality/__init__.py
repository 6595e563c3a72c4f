"""Data quality of what the models of a domain were served, day by day."""
