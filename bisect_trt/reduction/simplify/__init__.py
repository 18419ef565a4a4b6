"""The passes that make a candidate simple; `reduction/menu.py` has their order.

An edit changes a draft and says what it did. What an edit may break is found by ONNX's checks and by the
reference.
"""
