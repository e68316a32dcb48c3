"""Weights on their way to engines.

`directory` writes a version and has it loaded by `engines`: a `fleet` (pure) that swaps all at once
and brings back those that come late, each over a `client`. `recognition` chooses the client by the
kind of engine that answers: one module for each, and `memory` for tests. `finite` refuses what is
no number.
"""
