"""The judge: P(chosen | summary), by letters, in free form, or by yes and no; one for synthesis, reward and
evaluation."""
