"""This room finds the release, or the decision of the builder, that brought a failure.

It works on finished reproducers. What searches for nodes does not come in.
"""
