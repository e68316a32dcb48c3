"""From rows to an optimizer step, in torch.

`grpo` is the trainer; `packing` makes micro-batches of rows, `attention` runs a tree of rows at
once, `logprobs` scores each token at its own temperature, `losses` has one function for each loss,
`proximal` keeps the weights of one step before, `metrics` sums up a step for the ledger.
`model_support` refuses at start what cannot be trained, `trl_config` is TRL's configuration.
"""
