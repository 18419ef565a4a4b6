"""This room measures where an error comes from, tensor by tensor, in a few builds.

It measures and ranks. What looks for the smallest failing part does not come in.
"""
