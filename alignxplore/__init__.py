"""What the three stages share: records, prompts, the judge, the journal, summaries, statistics. Nothing happens at
import."""

__version__ = "0.1.0"
