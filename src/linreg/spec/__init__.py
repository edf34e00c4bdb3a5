"""The experiment spec: YAML with positions, overrides, validation, and error messages that point into the file.

Takes a path and `KEY=VALUE` overrides. Gives a frozen `ExperimentSpec`, or a SpecError with every problem at once.
Imports no torch. May import: `errors`, `system`, `registry`, `components`, and the registry of sources in `data`.
"""
