"""The log of turns: `compose` makes them, `writer` appends them, `health` watches the log."""
