"""``python -m jitlink`` is the command `jitlink`."""

import sys

from jitlink.tool.main import main

if __name__ == "__main__":
    sys.exit(main())
