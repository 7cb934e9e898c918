"""What importing clade does, and does not do."""

from __future__ import annotations

import subprocess
import sys

BARE = "import sys, clade; assert 'torch' not in sys.modules, 'torch was loaded'"

WITHOUT_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was touched")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import clade
for name in clade.__all__:
    getattr(clade, name)
import clade.cli, clade.synthesis
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_bare_import_does_not_load_torch():
    assert run(BARE).stderr == ""


def test_no_public_name_touches_the_network():
    done = run(WITHOUT_NETWORK)
    assert done.returncode == 0, done.stderr


def test_rooms_are_attributes():
    """As in `import torch; torch.nn`: also before anything else has imported them."""
    rooms = ("nn", "models", "data", "losses", "metrics", "labels", "engine", "recipes", "training", "synthesis")
    done = run(f"import clade; print(*(getattr(clade, room).__name__ for room in {rooms}))")
    assert done.stdout.split() == [f"clade.{room}" for room in rooms], done.stderr
    assert "torch" not in run("import clade, sys; dir(clade); print(*sys.modules)").stdout.split()


def test_an_unknown_name_is_an_attribute_error():
    done = run("import clade; clade.trian")
    assert "AttributeError: module 'clade' has no attribute 'trian'" in done.stderr
