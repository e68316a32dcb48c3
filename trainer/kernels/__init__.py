"""Other implementations of a model's own layers: Liger's, and torch's compiler.

Both need what this project's tests do not have, a GPU above all. They are tested up to the call
that they make, marked so wherever they are named, and turned on by hand alone.
"""
