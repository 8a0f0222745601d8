"""Long pipelines as lists of steps: the quick start and the studies.

steps     what a step is: commands, servers that they need, steps that they come after
settings  choices of a pipeline, read from environment variables
folder    the folder of a run: a lock, the settings and commits that made it, which steps are done
plan      what a list will do (`--check`)
runner    runs a list, in order or side by side, and goes on where it was interrupted
films     the list on people's choices; other: its models on the persons of another edition
world     the list of the simulated world
stages    how tiny policies are trained and scored
"""
