"""The error of what does not work now and may work later."""

from shared.errors import FourSlotError


class PassingError(FourSlotError):
    """Nothing is wrong with what was asked; another start may do it."""
