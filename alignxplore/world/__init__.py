"""A simulated world whose users' preferences are known, and the tiny models that live in it."""
