"""What tests share, by the folder of the product that it belongs to.

`schemas` makes events, `engines` stands in for what samples, `proxy` puts a proxy before one,
`streams` drives stages, `trainer` and `agents` have what theirs need, and `suite` serves the tests
themselves: their order, their child processes, and the figures of tests/house.
"""
