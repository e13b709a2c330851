"""The market: the subnet's rules as data, task scores, income, and tournaments.

Submodules are imported by name (``from sim.market.ranking import score_tasks``), so that reading a
rule set does not pay for what it does not use.
"""
