"""How a step becomes durable and then known; the order is the guarantee.

`protocol` says it move by move (pure; the simulation drives it, too). `checkpoint`,
`optimizer_state` and `tensor_files` are what is written, `durable_files` how it outlives a power
cut. `lock` keeps a second trainer out, `resume` finds where a run stands, `announcer` tells the
log, over Kafka in `announcer_kafka`.
"""
