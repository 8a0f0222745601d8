"""What the three stages share: records, prompts, the judge, the journal, summaries, statistics. Nothing happens at
import, but that a command of ours gets the standard files that were closed, and ends with a sentence by Ctrl-C while
it imports the rest."""

from alignxplore.errors import check_surroundings, hear_interrupts

__version__ = "0.1.0"

check_surroundings()
hear_interrupts()
