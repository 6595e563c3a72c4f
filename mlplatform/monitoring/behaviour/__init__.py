"""How the models of a domain behave, day by day, before anybody knows whether they were right."""
