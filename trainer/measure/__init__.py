"""What a step costs: time, memory and arithmetic.

`flops` counts a model's floating point operations and `speed` makes rates of them: both are pure.
`times` adds up the seconds of each part of a step by a clock that it is given. `memory` asks the
device, and `profile` writes a trace of one step on demand. The trainer drives them by `meter`.
"""
