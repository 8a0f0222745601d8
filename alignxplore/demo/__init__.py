"""The demo: a page that shows what a summary is, what it rests on, and what downstream models make of it.

`python -m alignxplore.demo` explains itself.
"""
