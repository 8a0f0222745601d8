"""Supervised fine-tuning: the tokenised set, its trainer, the folder of a run."""
