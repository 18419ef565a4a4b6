"""Here input values are read, made and held against what the model declares.

Files of other tools are read as data; nothing in them is run.
"""
