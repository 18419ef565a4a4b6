"""Here a set of nodes becomes a model of its own, fed with recorded values.

`cutter` draws the boundary, `constants` says what becomes a constant, `types` what has no record,
`pieces` puts bytes together, `continuation` makes the rest of the model behind a cut.
"""
