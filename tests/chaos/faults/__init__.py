"""What hurts a run from outside: brokers, networks, and power cuts."""
