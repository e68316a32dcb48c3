"""The small engine: exact on two cores, in vLLM's shapes; and the start of vLLM itself.

`process` serves `server`, whose routes `chat` and `completions` ask one `batcher`, which samples
with `decode`. `rendering` applies chat templates, `policies` checks weights before they are loaded,
`tiny` makes the demo's model. `vllm` builds the command line of a vLLM that the proxy can record.
"""
