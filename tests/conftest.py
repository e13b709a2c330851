"""What every test starts from."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
