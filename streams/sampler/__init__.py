"""The sampler: fresh batches mixed with old ones, for a trainer that learns from both.

`rules` are numbers that say how old batches are drawn, `tree` finds where a running sum lies, and
`memory` keeps pointers to past batches with their priorities and draws from them.
"""
