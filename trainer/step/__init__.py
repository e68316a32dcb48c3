"""From rows to an optimizer step, in torch.

`grpo` is the trainer. `gradient` computes a step in as many passes as memory asks for, `packing`
makes tensors of a pass' rows, `attention` runs their tree at once in a `precision`, `logprobs`
scores each token at its own temperature, `losses` has one function for each loss, `proximal` keeps
the weights of one step before, `metrics` sums up a step for the ledger. `model_support` refuses at
start what cannot be trained, `trl_config` is TRL's configuration.
"""
