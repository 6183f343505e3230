"""What importing the package sets for the process, before PyTorch is loaded."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.commands import ROOT

ASKED = """
import os, sys
{first}
import numpy as np

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

assert "torch" not in sys.modules
start = resident()
np.ones(12_500_000)  # 100 MB, freed at once
print(os.environ.get("OMP_WAIT_POLICY"), resident() > start + 9e7)
"""


def told(first, **given):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
    command = [sys.executable, "-c", ASKED.format(first=first)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is asked")
def test_notebooks_wait_asleep_and_keep_freed_memory_however_they_are_run():
    assert told("import ttame_book") == ["PASSIVE", "True"]
    assert told("import ttame_book", OMP_WAIT_POLICY="ACTIVE") == ["ACTIVE", "True"]
    assert told("") == ["None", "False"]


def test_a_process_that_ends_searches_nothing_for_garbage():
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count())); {}"

    def frozen(then):  # what is registered first is called last
        command = [sys.executable, "-c", code.format(then)]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)

    assert frozen("import ttame_book") > 1000
    assert frozen("pass") < 1000


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda f: f.stem)
def test_a_notebook_sets_how_threads_wait_before_pytorch_is_loaded(file):
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    imports = [re.match(r"(?:from|import) (\w+)", line) for line in lines]
    names = [found[1] for found in imports if found and found[1] not in sys.stdlib_module_names]
    assert names[0] == "ttame_book"
