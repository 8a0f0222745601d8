"""What the documentation in docs/ takes from the code, so that it cannot go stale."""
