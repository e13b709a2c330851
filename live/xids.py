"""What the driver's error numbers (Xids) say of a GPU, after NVIDIA's public catalogue.

https://docs.nvidia.com/deploy/xid-errors/. What is not listed here counts against the GPU: it is
out of service until it was reset or an operator says that it is well. Among those are 46, 48, 62,
64, 74, 79, 95, 109 (a context switch that timed out: the catalogue asks for a reset), 110, 119,
120, 140, 143 and every number that is newer than this table.
"""

CONTAINED = 94
"""A memory error that was contained to one program: its ECC count is accounted for."""

PROGRAMS = frozenset({11, 13, 25, 31, 32, 43, 45, 68, 69, CONTAINED, 137})
"""A fault in a program, or its clearing away: the program dies, the GPU serves on."""

NEWS = frozenset({63, 92, 93, 106, 107, 154, 171, 172})
"""Tells of what other questions show for themselves: a remapped row (63), many corrected errors
(92), another recovery action (154), where the error of another Xid was (171, 172)."""


def is_fatal(xid: int) -> bool:
    """Whether the GPU is not to be used again before it was reset."""
    return xid not in PROGRAMS | NEWS
