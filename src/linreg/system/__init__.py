"""The machine under the tool: start-up, memory, threads, files, random generators, the version.

Input: plain values and paths. Output: a faster start, files that are complete or absent, states of the global
generators. May import: `errors`.
"""
