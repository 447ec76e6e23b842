"""The commands, with a line each: `python -m jensen`."""

from jensen.launch.commands import listed

if __name__ == "__main__":
    listed()
