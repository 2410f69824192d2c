#!/usr/bin/env python3
"""Make random rows of every block format and the floats that the `gguf` package reads in them.

Needs: pip install gguf==0.19.0 numpy      Use: make.py
Writes NAME.bin (rows as in a GGUF file) and NAME.f32 (little endian), 11 rows of 512 elements, or
3 rows of the formats that came later: with fewer blocks.
The bytes are random, scales included, but for half floats that would be infinite or NaN, and for
powers of two so large that a weight would be.
"""
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

COLS = 512
# Rows, type, bytes per block, elements per block, offsets of half floats in the block.
FORMATS = [
    (11, T.Q4_0, 18, 32, [0]), (11, T.Q4_1, 20, 32, [0, 2]), (11, T.Q5_0, 22, 32, [0]),
    (11, T.Q8_0, 34, 32, [0]), (11, T.Q4_K, 144, 256, [0, 2]), (11, T.Q6_K, 210, 256, [208]),
    (11, T.F16, 2, 1, [0]), (11, T.BF16, 2, 1, []),
    (3, T.Q5_1, 24, 32, [0, 2]), (3, T.Q2_K, 84, 256, [80, 82]), (3, T.Q3_K, 110, 256, [108]),
    (3, T.Q5_K, 176, 256, [0, 2]), (3, T.IQ4_NL, 18, 32, [0]), (3, T.IQ4_XS, 136, 256, [0]),
    (3, T.MXFP4, 17, 32, []), (3, T.TQ1_0, 54, 256, [52]), (3, T.TQ2_0, 66, 256, [64]),
]

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(20261121)
for rows, kind, size, length, halves in FORMATS:
    blocks = rng.integers(0, 256, (rows * COLS // length, size), dtype=np.uint8)
    for at in halves:
        scales = rng.normal(0, 0.05, len(blocks)).astype("<f2")
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(-1, 2)
    if kind == T.BF16:
        blocks = (rng.normal(0, 1, (len(blocks), 1)).astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    if kind == T.MXFP4:
        blocks[:, 0] = np.minimum(blocks[:, 0], 250)
        blocks[:2, 0] = [0, 1]  # subnormal
    source = blocks.reshape(rows, -1)
    floats = dequantize(source, kind).astype("<f4")
    assert floats.shape == (rows, COLS) and np.isfinite(floats).all()
    (here / f"{kind.name.lower()}.bin").write_bytes(source.tobytes())
    (here / f"{kind.name.lower()}.f32").write_bytes(floats.tobytes())
