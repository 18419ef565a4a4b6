"""This room is one model on one target: what every command starts from, and how the target is asked.

`prepare` opens it, `recording` runs the reference, `prober` asks each question once, `journal` and
`cache` remember. Which question is asked next does not come in.
"""
