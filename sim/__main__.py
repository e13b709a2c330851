"""``python -m sim``."""

import os
import sys

from sim.cli import INTERRUPTED, main

code = main()
if code == INTERRUPTED:
    # an interrupt may have caught the process pool holding a lock that its exit would wait for
    if "multiprocessing.util" in sys.modules:
        # what has to be given back to the system is given back; nothing here waits for anybody
        sys.modules["multiprocessing.util"]._run_finalizers(0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
