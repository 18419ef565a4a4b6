"""What commands print on a terminal, and what they write for other programs.

Everything here turns results into text. What decides anything does not come in.
"""
