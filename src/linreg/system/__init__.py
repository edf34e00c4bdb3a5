"""The machine under the tool: start-up, memory, threads, whole files, random generators, the version.

Takes plain values and paths. Gives work-arounds for what libraries do needlessly, files that are written whole or not
at all, and the states of the global generators. May import: `errors`.
"""
