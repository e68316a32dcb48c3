"""Mutation testing of the pure cores: change one thing, and see whether a quick test fails.

`cores` says which files and tests belong together. `generate` makes the mutants with Cosmic Ray, in an
environment of its own. `trial` runs the tests of each in a fork, with the changed module in the place
of the real one: no file is touched.
"""
