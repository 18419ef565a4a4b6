"""Here time is measured: of a model over its shapes, of its layers, and of one target against another.

`timing` says what a set of times tells and when it is enough, `cliffs` searches a range of sizes for
jumps, `rounds` compares two sides; all three are pure functions of what they are told. `meter` asks the
workers, `run` does everything in order. What says whether an answer is right stays outside: see `session`.
"""
