"""What is measured of the past of a run: `odradek bench replay` puts the parts together.

`sampler` draws old batches beside TorchRL's, and reads their memory back. `writer` makes a long
past in a short time, `search` runs the verbs that read it, `rewards` measures late rewards, and
`subscribers` what readers cost those who play; `player` is the agent that plays there, and
`reader` is one of those who read. `command` measures a command line.
"""
