"""The closed form of least squares: QR in blocks of rows, the solution, its equation with standard errors and tests.

Input: the design matrix and targets in blocks, or a prepared data set and a network that is linear in its parameters.
Output: the optimum, its losses, coefficients in the table's units. May import: `errors`, `system`, `data`.
"""
