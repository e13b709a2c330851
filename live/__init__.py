"""The world touched: the production daemon (its parts arrive with later releases)."""
