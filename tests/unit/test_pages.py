"""Kept memory: the command line's own choice, never the library's."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import clade
from clade.system.pages import can_keep_pages, keep_pages

countable = pytest.mark.skipif(
    not can_keep_pages() or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="only glibc's allocator can be told to keep pages, and says from 2.33 on whether it does",
)

# glibc counts the blocks that it has mapped afresh; where pages are kept, a large one is none of them.
COUNTED = """
import ctypes, json, sys

class Counts(ctypes.Structure):
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype = Counts, ctypes.c_void_p

def mapped_afresh():
    before = libc.mallinfo2().hblks
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(48 * 2**20)))
    after = libc.mallinfo2().hblks
    libc.free(block)
    return after > before

found = [mapped_afresh()]
"""
LIBRARY = """
import torch
import clade
from clade import cli
from clade.engine import Engine

ids = torch.zeros(1, 32, 32, dtype=torch.uint8)
clade.load(sys.argv[1] + "/g.safetensors", device="cpu")(ids)
Engine(clade.create_generator("clade", num_classes=3, width=2))(ids)
recipe = clade.Recipe.from_dict({
    "data": {"name": "scenes", "size": [32, 32], "options": {"count": 2, "val_count": 1}},
    "generator": {"width": 2},
    "discriminator": {"width": 2, "scales": 1},
    "losses": {"perceptual": 0},
    "training": {"steps": 1, "batch_size": 2, "calibrate": 1, "accelerator": "cpu"},
})
clade.train(recipe, sys.argv[1] + "/run", quiet=True)
found.append(mapped_afresh())
assert cli.main(["info", sys.argv[1] + "/g.safetensors"]) == 0
found.append(mapped_afresh())
"""
DRAWING = """
files = [sys.argv[1] + "/g.safetensors", sys.argv[1] + "/label.png"]
assert cli.main(["generate", *files, "--out", sys.argv[1] + "/out", "--device", "cpu"]) == 0
"""


def run(program, *arguments):
    program = f"{COUNTED}{program}\nfound.append(mapped_afresh())\nprint(json.dumps(found))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@countable
def test_drawing_and_training_in_a_program_leave_its_allocator_as_it_was(tmp_path):
    clade.save(clade.create_generator("clade", num_classes=3, width=2), tmp_path / "g.safetensors")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "label.png")
    *library, command_line = run(LIBRARY + DRAWING, str(tmp_path))
    assert library == [True, True, True]
    assert not command_line


@countable
def test_a_program_can_keep_pages(tmp_path):
    assert run("from clade.system.pages import keep_pages\nassert keep_pages()") == [True, False]


def test_keeping_pages_can_be_asked_for_again():
    assert keep_pages() == keep_pages() == can_keep_pages()
