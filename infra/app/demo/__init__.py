"""The demo: a small model learns a game through the log, while processes are killed.

`run` starts a session of the bundled `project`, `course` publishes, kills and waits, `outcome` and
`cost` count, `report` and `plots` write what is seen.
"""
