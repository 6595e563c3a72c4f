"""What is deployed: bundle, manifest, ledger, MLflow, Bento."""
