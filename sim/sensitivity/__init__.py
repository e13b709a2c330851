"""What the answer depends on: break-even, the curve over caps, tornado, global indices.

Pure functions of callables: what is evaluated, a season or a formula, is the caller's.
"""

from sim.sensitivity.break_even import BreakEven, break_even
from sim.sensitivity.cap_curve import BestCap, CapCurve, CapPoint, cap_curve
from sim.sensitivity.parameters import (
    Bar,
    MorrisEffect,
    Parameter,
    SobolIndex,
    morris,
    sobol,
    tornado,
    with_value,
)

__all__ = [
    "Bar",
    "BestCap",
    "BreakEven",
    "CapCurve",
    "CapPoint",
    "MorrisEffect",
    "Parameter",
    "SobolIndex",
    "break_even",
    "cap_curve",
    "morris",
    "sobol",
    "tornado",
    "with_value",
]
