"""The command line: arguments in, text out. Nothing else in linreg reads arguments or prints.

`app` lists the commands. Each of them reads its arguments, calls one function of another package, and prints the result
to stdout. `main` turns every error into a message on stderr and an exit code. The package may import every other one,
but a command imports torch only when it runs.
"""
