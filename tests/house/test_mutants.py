"""Mutation testing tells what is caught, what is not, and what proves nothing."""

import json
import subprocess
import sys

import pytest

from tests.mutants.cores import cores
from tests.support.suite.child_processes import ROOT, python_path

PATH = "schemas/arrays.py"
PROGRAM = """
import json, sys
from tests.mutants.trial import run, warm_up
test, *mutants = json.loads(sys.stdin.read())
fates = [warm_up((test,)).fate]
fates += [run((test,), mutant, 2 if "while True" in mutant["source"] else 60).fate for mutant in mutants]
print(json.dumps(fates))
"""
TEST = """
from odradek.schemas.arrays import pack_ids


def test_ids():
    assert b"\\1\\0\\0\\0" == pack_ids([1])
"""


def test_each_mutant_has_its_own_fate(tmp_path):
    """The code as it is survives, a change is caught, a hang ends, and what has no import is broken."""
    test = tmp_path / "test_ids.py"
    test.write_text(TEST)
    whole = (ROOT / PATH).read_text()
    sources = [
        whole,
        f"{whole}\ndef pack_ids(_):\n    return b''\n",
        f"{whole}\ndef pack_ids(_):\n    while True: pass\n",
        f"{whole}\nno_such_name\n",
    ]
    mutants = [{"path": PATH, "source": source} for source in sources]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps([str(test), *mutants]), text=True,
        capture_output=True, cwd=ROOT, env={"PATH": "", "PYTHONPATH": python_path()}, timeout=110,
    )  # fmt: skip
    assert "" == done.stderr
    assert ["survived", "survived", "killed", "timed out", "broken"] == json.loads(done.stdout)
    assert whole == (ROOT / PATH).read_text()


@pytest.mark.parametrize("core", cores().values(), ids=lambda core: core.name)
def test_a_core_names_files_and_tests_that_there_are(core):
    """A file that is moved takes its row along."""
    assert [] == [path for path in (*core.files, *core.tests) if not (ROOT / path).is_file()]
