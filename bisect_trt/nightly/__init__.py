"""This room runs many models unattended, remembers what was seen, and says what is new.

Each model is one `check` and one `reduce` in a process of its own. What judges a single failure does not
come in.
"""
