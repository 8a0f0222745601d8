"""Streaming GRPO on verl: what verl and its Ray workers import by name. Launched by
verl/examples/grpo_trainer/run_streaming_8p.sh."""
