"""What a checkpoint is made of, and how its bytes come to the disk while the run goes on.

`shards` makes safetensors of tensors, piece by piece. `model_files` says which tensors and files
are a model's folder. `snapshot` copies the state of one moment, and `writer` writes the copy in a
thread of its own. In which order, and when a checkpoint counts, is `commit`'s.
"""
