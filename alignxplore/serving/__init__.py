"""Models to be asked: endpoints, local servers, what NAME=TARGET means, and what identifies weights."""
