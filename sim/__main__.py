"""``python -m sim``."""

import os
import sys

from sim.cli import INTERRUPTED, main

code = main()
if code == INTERRUPTED:
    # an interrupt may have caught the process pool holding a lock that its exit would wait for
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
