"""The engine `compiled`. `engine` makes it; `arrays` calls the compiled functions, the outermost of which is in
`epochs`."""

from linreg.training.engines.compiled.engine import make_compiled_engine

__all__ = ["make_compiled_engine"]
