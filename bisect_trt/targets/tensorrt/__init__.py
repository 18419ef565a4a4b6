"""Here TensorRT and TensorRT-RTX are targets; `backend` is the one module that imports them.

`config` sets the builder, `log` reads what it says, `engine` looks into what it made.
"""
