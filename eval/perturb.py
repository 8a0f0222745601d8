"""Disturbed copies of a benchmark, for the robustness table: what do noise, order, missing alternatives and injected
text cost?

    python eval/perturb.py --data mind=mind_upi.jsonl --out outputs/robustness/data --limit 200

writes NAME_upi.jsonl (the same users, undisturbed) and NAME~KIND_upi.jsonl for each kind, which eval/ reads like any
benchmark:

    swapped:SHARE            chosen and rejected change places in a share of the interactions
    foreign:SHARE            interactions of other people are put in between, as many as a share of what is shown
    foreign_shuffled:SHARE   the same, and all that is shown loses its order
    shuffled                 the order is lost
    no_negatives             only what was chosen is known
    mixed[:SHARE]            interactions from another benchmark (--mix) are put in between, as many as a share of what
                             is shown (default: as many as are shown). The same person's come first, then strangers'.
                             Equal ids are one person in a data set, in the simulated world and in files of your own.
                             Manifest and table say how many got a stranger's, and where --mix held too few
    nothing:SHARE            choices of other people are put in between, each with the same one the other way round;
                             together they say nothing, so they must not move a choice
    injected_markup:SHARE    item texts that imitate the prompt's own lines and the chat format, in order to report a
                             choice never made
    injected_order:SHARE     item texts that order the model what to write

The published mixes are, as far as is known, `mixed:0.75` of MovieLens into AlignX and `foreign_shuffled:0.5`.

Only the part of a history that is shown changes; targets never do. Every draw is by content hash: the same users give
the same copies in whatever order. A larger share disturbs what a smaller one did and more; a share of 0 disturbs
nothing. One user more or less changes the copies of few others.
"""

from alignxplore.command import run
from alignxplore.evaluation.perturbations import PerturbOptions, write_copies

if __name__ == "__main__":
    run(write_copies, PerturbOptions, __doc__)
