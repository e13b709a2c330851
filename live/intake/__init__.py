"""Where offers and start requests come in: the subnet's HTTP protocol, and the spool folder."""
