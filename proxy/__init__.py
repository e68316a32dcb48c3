"""The proxy between agents and the engine: every model call is in the log before it is over."""
