"""Which rows a step has, and which are computed together. Pure numpy: no torch, I/O or clock.

`micro_batches` deals a step's rows out to forward passes that fit into memory; `prefix_tree` lays
the rows of one of them out as a tree, in which shared beginnings stand once; `budget` is how many
tokens of a pass fit, and `memory` an estimate of that. `retries` plans anew when memory runs out.
`replayed` says which rows that were drawn again a step may have.
The step (`odradek.trainer.step`) computes what is planned.
"""
