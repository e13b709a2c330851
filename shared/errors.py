"""Named errors. A refusal is a value, never one of these."""


class FourSlotError(Exception):
    """Base of every error this project raises on purpose."""


class InputError(FourSlotError, ValueError):
    """What came in is wrong: one line saying where, what was found and what is allowed."""


class IllegalTransition(FourSlotError):
    """An input that the machine's present state does not allow; the state is unchanged."""


class OutOfOrder(FourSlotError):
    """An input that sorts before the last one handled, or skips a timer that is due."""
