"""The world made up: offer streams, a SimPy box, a market, and what they say of a strategy."""
