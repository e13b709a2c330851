"""The policy, pure and exact: what every accept or refuse decision must be."""
