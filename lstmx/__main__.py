"""`python -m lstmx`: the same as the console script `lstmx`."""

import sys

from lstmx.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
