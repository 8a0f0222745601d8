"""Summaries written in shards: every person in one of them, all read together, and the same as without shards."""

import asyncio
import json

import pytest

from alignxplore.datasets.movielens import DATASET
from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import EvaluationArguments, GenerationArguments
from alignxplore.evaluation.benchmarks import SummarySet, find_sets
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.generation import generate, write_summaries
from alignxplore.evaluation.scoring import build_cells, benchmarks_of
from alignxplore.evaluation.shards import WHOLE, Shard
from alignxplore.records import RecordError, content_hash
