"""Someone's history in, a summary out, and what downstream models make of it; for the command line and for the demo.

`python -m alignxplore.ask` explains itself; `alignxplore/demo` is the same as a page.
"""
