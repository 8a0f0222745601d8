"""What the three stages share: records, prompts, the judge, the journal, summaries, statistics. Nothing happens at
import, but that Ctrl-C ends a command of ours with a sentence while it imports the rest."""

from alignxplore.errors import hear_interrupts

__version__ = "0.1.0"

hear_interrupts()
