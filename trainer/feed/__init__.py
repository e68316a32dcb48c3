"""From the log to rows.

`batch_reader` follows `rl.batches.v1` and, by `episode_reader`, its pointers; `rows` makes rows of
sequences with their `advantages`, `sampling` says which tokens are trained on, `lineage` how old
each is. `cursor` decides which rows a step uses and where a run stands; `rollout_worker` hands them
to TRL. `uninformative` counts batches that teach nothing.
"""
