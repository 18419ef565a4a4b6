"""This room finds the smallest part of a model that still fails in the same way.

`reduce` is the conductor, `menu` has the passes in their order, `problem` decides what is kept,
`list_search` is the pure search. A new pass goes into `passes/` or `simplify/` and into the menu
(docs/architecture.md).
"""
