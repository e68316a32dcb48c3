"""The sampler: fresh batches mixed with old ones, for a trainer that learns from both.

`rules` are the numbers that decide, and `settings` what a person sets. `random_stream` has the
numbers of a draw, `tree` finds where a running sum lies, `memory` keeps pointers to past batches
with their priorities and draws from them, and `mixer` says what is written for what was read. All
of these are pure; `process` drives the mixer.
"""
