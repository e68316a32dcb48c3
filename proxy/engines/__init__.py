"""Engines: which of them gets a call, and the state of each.

`pool` chooses among `member`s, each with a `client` (HTTP), the version that it serves (`versions`,
pure) and what its log probabilities are of (`logprobs_mode`, pure; `logprobs_probe` asks). All of
them speak the surface of `schemas/http/engine`; the `client` has an `adapter`, chosen by
`recognition`: one module for each kind of engine.
`policy_version` follows `rl.policies.v1` and tells the pool what is in force.
"""
