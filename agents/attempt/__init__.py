"""One attempt at one sample of a task: an agent's run, as the log sees it.

`attempt` is its state, `executor` the one path on which every agent runs: it writes `events`,
awaits the agent within `slots`, publishes its rewards, has the proxy `seal` the episode, and only
then lets `event_queue` release the terminal status. `outcome` judges exceptions and exit codes,
`task_store` keeps the snapshots from which a successor goes on.
"""
