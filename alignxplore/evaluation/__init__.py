"""Evaluation: benchmarks, conditions, judgements, metrics, comparisons, the published numbers; the tables are in
`report`."""
