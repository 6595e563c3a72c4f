"""mlplatform: the production pipeline around a tabular model, on Dagster."""
