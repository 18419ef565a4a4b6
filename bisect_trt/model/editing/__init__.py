"""Here a candidate is opened, changed and closed again.

`draft` is what an edit changes, `simplicity` the order in which candidates are simpler; `dimensions`,
`ties` and `rules` know what sizes ask of each other. Which edit is worth a probe does not come in.
"""
