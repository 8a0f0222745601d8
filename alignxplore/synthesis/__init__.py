"""From behaviour to training rows: streams and the signal model, a teacher's rounds, the funnel, selection of RL
rows."""
