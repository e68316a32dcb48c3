"""The stages, each a pure fold over one partition, in the order of the data.

`intake` checks rewards, `assembler` holds an `episode` open until it is sealed and rewarded and
writes it, `continuity` and `samplings` turn its turns into sequences of tokens, and `grouper` makes
one batch of each task's episodes.
"""
