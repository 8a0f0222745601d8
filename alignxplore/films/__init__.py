"""MovieLens for models of a million parameters: all that the quick start needs beyond the stages themselves.

Everything here is a crutch of these tiny models and named as such: a tokenizer that sees genres and decade of a film
alone, lessons with probes, a teacher that counts. The stages know nothing of it.
"""
