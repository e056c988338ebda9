"""`python -m fairprefix`, the same as the program `fairprefix`."""

import sys

from fairprefix.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
