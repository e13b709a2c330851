"""Requests that are not served: what the other end is told, in one line."""

from shared.errors import FourSlotError


class Refused(FourSlotError):
    """A request that is not served. status: of HTTP, 4xx always. headers: for the answer."""

    def __init__(self, status: int, why: str, *headers: tuple[bytes, bytes]) -> None:
        """One line saying why; it tells nothing that a stranger may not know."""
        super().__init__(why)
        self.status, self.headers = status, headers
