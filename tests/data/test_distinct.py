from __future__ import annotations

import subprocess
import sys
from hashlib import blake2b

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sentemb.data.tokens import text_hashes


@given(st.lists(st.text(max_size=20), max_size=30))
def test_equal_exactly_where_texts_are_equal_and_never_negative(texts):
    hashes = text_hashes(texts)
    assert hashes.shape == (len(texts),)
    assert hashes.dtype == np.int64
    assert (hashes >= 0).all()
    for i, first in enumerate(texts):
        for j, second in enumerate(texts):
            assert (hashes[i] == hashes[j]) == (first == second)


def test_is_blake2b_cut_to_63_bits():
    expected = int.from_bytes(blake2b("Zürich".encode(), digest_size=8).digest(), "little") & (2**63 - 1)
    assert text_hashes(["Zürich"]).tolist() == [expected]


def test_the_same_in_another_process():
    code = "from sentemb.data.tokens import text_hashes; print(text_hashes(['a', 'b']).tolist())"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    ).stdout
    assert told.strip() == str(text_hashes(["a", "b"]).tolist())


def test_a_lone_surrogate_has_a_hash():
    assert text_hashes(["\ud800"])[0] != text_hashes(["\ud801"])[0]
