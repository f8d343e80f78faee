"""`python -m cycontainer`: the command. Face."""

from cycontainer.cli.__main__ import run_command

if __name__ == "__main__":
    run_command()
