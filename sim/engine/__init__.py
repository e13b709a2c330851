"""The SimPy box: what schedules an offer stream through the shared policy."""
