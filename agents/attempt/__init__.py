"""One attempt at one sample of a task: what an agent's run is to the log.

`attempt` is its state, `executor` the one path on which every agent runs: it writes `events`,
awaits the agent within `slots`, publishes its rewards, has the proxy `seal` the episode, and only
then lets `event_queue` release the terminal status. `outcome` judges exceptions and exit codes,
`task_store` keeps the snapshots from which a successor goes on.
"""
