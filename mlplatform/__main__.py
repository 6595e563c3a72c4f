"""`python -m mlplatform`: the command, where its script is not on the path."""

from mlplatform.cli.command import app_main

if __name__ == "__main__":
    app_main()
