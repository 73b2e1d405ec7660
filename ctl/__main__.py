"""`python -m ctl` is the command `gtm`; supervised children are started this way."""

from __future__ import annotations

import sys

from ctl.main import main

if __name__ == "__main__":
    sys.exit(main())
