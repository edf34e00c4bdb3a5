"""Measures linreg against comparable tools: `python -m benchmarks`, or `make bench` with the tools installed."""
