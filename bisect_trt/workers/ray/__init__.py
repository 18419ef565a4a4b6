"""Here the same pool runs its jobs on a Ray cluster; `cluster` is the one module that imports Ray."""
