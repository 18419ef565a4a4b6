"""This room runs jobs in warm processes with a deadline and a memory limit; deaths become answers.

A job is a function of this package, importable by name. What a job means to a search does not come in.
"""
