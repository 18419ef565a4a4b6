"""Here `report.html` and `report.md` are drawn from the facts of `document`.

The page is complete by itself: no library, no network, light and dark.
"""
