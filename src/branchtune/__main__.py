"""`python -m branchtune` is the command `branchtune`."""

from branchtune.cli.main import entry

if __name__ == "__main__":
    entry()
