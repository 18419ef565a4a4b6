"""The passes of the search, one kind a file; `reduction/schedule.py` has their order."""
