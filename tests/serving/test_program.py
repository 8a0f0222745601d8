"""Which program a server is."""

import os
import subprocess
from importlib.metadata import PackageNotFoundError

import pytest

from alignxplore.environment import ROOT
from alignxplore.serving import server
from alignxplore.serving.server import ServerError, start


def test_vllm_of_another_environment_is_run_as_it_is(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(server.importlib.metadata, "version", version)
    monkeypatch.setattr(server.shutil, "which", lambda *_, path=None: None if path else "/opt/other/bin/vllm")
    assert server.program() == ["/opt/other/bin/vllm"]


def test_nothing_of_the_folder_that_one_is_in_is_imported(tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text("raise SystemExit('not vLLM')")
    (tmp_path / "alignxplore").mkdir()
    (tmp_path / "alignxplore" / "__init__.py").write_text("raise SystemExit('another checkout')")
    monkeypatch.setattr(server, "on_cpu", lambda: True)
    command = [*server.program()[:-1], "import importlib.util as u; print(u.find_spec('alignxplore').origin)"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    origin = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert origin.strip() == str(ROOT / "alignxplore" / "__init__.py")


def test_vllm_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(server.shutil, "which", lambda *_, **__: None)
    with pytest.raises(
        ServerError, match="vllm is not installed in this environment; install the requirements or give the URL"
    ):
        start("m", log_path=tmp_path / "log")
