"""The passes of the search, one kind a file; `reduction/menu.py` has their order.

A pass proposes candidates to a problem. It writes nothing and prints nothing.
"""
