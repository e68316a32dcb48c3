"""From the log to rows.

`readers` follow `rl.batches.v1` and its pointers; `rows` makes rows of sequences with their
`advantages`, `sampling` says which tokens are trained on, `lineage` how old each is. `cursor`
decides, by the `rules`, which rows a step uses and where a run stands; `rollout_worker` hands them
to TRL. `uninformative` counts batches that teach nothing.
"""
