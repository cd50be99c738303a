"""``python -m jitlink`` is the command `jitlink`."""

from jitlink.tool.main import run

if __name__ == "__main__":
    run()
