#!/usr/bin/env python3
"""Make random rows of every block format and the floats that the `gguf` package reads in them.

Needs: pip install gguf==0.19.0 numpy      Use: make.py
Writes NAME.bin (11 rows of 512 elements, as in a GGUF file) and NAME.f32 (little endian).
The bytes are random, scales included, but for half floats that would be infinite or NaN.
"""
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

ROWS, COLS = 11, 512
# Type, bytes per block, elements per block, offsets of half floats in the block.
FORMATS = [
    (T.Q4_0, 18, 32, [0]), (T.Q4_1, 20, 32, [0, 2]), (T.Q5_0, 22, 32, [0]), (T.Q8_0, 34, 32, [0]),
    (T.Q4_K, 144, 256, [0, 2]), (T.Q6_K, 210, 256, [208]), (T.F16, 2, 1, [0]), (T.BF16, 2, 1, []),
]

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(20261121)
for kind, size, length, halves in FORMATS:
    blocks = rng.integers(0, 256, (ROWS * COLS // length, size), dtype=np.uint8)
    for at in halves:
        scales = rng.normal(0, 0.05, len(blocks)).astype("<f2")
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(-1, 2)
    if kind == T.BF16:
        blocks = (rng.normal(0, 1, (len(blocks), 1)).astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    rows = blocks.reshape(ROWS, -1)
    floats = dequantize(rows, kind).astype("<f4")
    assert floats.shape == (ROWS, COLS) and np.isfinite(floats).all()
    (here / f"{kind.name.lower()}.bin").write_bytes(rows.tobytes())
    (here / f"{kind.name.lower()}.f32").write_bytes(floats.tobytes())
