"""Exports: a trained model in a form that needs no linreg.

`exporting.export` is the door. `describing` turns a model into a list of plain steps, which is the JSON form. `sql`,
`c`, `onnx` and `json` each write that description in one format and run the result; `pt2` writes the modules
themselves. `checking` compares the result with `predict`.
"""
