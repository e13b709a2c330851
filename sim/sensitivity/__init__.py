"""What the answer depends on: break-even, the curve over caps, tornado, global indices.

What is exported here are pure functions of callables: what is evaluated, a season or a formula, is
the caller's. ``seasons`` evaluates scenarios, ``ranges`` says what is varied and how far.
"""

from sim.sensitivity.break_even import BreakEven, break_even
from sim.sensitivity.cap_curve import BestCap, CapCurve, CapPoint, cap_curve
from sim.sensitivity.indices import (
    MorrisEffect,
    SobolIndex,
    morris,
    morris_evaluations,
    sobol,
    sobol_evaluations,
)
from sim.sensitivity.one_at_a_time import Bar, tornado
from sim.sensitivity.parameters import Choice, Parameter, Portion, Span, with_value

__all__ = [
    "Bar",
    "BestCap",
    "BreakEven",
    "CapCurve",
    "CapPoint",
    "Choice",
    "MorrisEffect",
    "Parameter",
    "Portion",
    "SobolIndex",
    "Span",
    "break_even",
    "cap_curve",
    "morris",
    "morris_evaluations",
    "sobol",
    "sobol_evaluations",
    "tornado",
    "with_value",
]
