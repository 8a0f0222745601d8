"""What a summary has to beat: cues that never read a history, content tally, and TALLRec."""
