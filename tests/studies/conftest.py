"""Scripts of studies as modules."""

import importlib.util
import sys

import pytest

from tests import ROOT


@pytest.fixture(scope="module")
def study(request):
    """The script that a test module names: STUDY = "injection"."""
    name = request.module.STUDY
    spec = importlib.util.spec_from_file_location(f"study_{name}", ROOT / f"studies/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
