"""The domains that come with the platform, one package each."""
