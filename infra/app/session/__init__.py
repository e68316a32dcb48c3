"""A run of a project: `odradek up`, from the first process to the last figure.

`session` starts and stops, `training` publishes tasks and `evaluation`s, `warm_up` makes the engine
ready, `follower` reads the topics into `stats`, and `progress` shows them.
"""
