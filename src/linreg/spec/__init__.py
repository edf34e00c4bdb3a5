"""The experiment spec: YAML with positions, overrides, validation, and error messages that point into the file.

Input: a path and `KEY=VALUE` overrides. Output: a frozen `ExperimentSpec`, or a SpecError with every problem.
Imports no torch. May import: `errors`, `system`, `registry`, `components`, and the registry of sources in `data`.
"""
