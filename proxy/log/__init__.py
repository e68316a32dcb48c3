"""The log of turns: `writer` appends them in order, `health` says whether the log takes any."""
