#!/usr/bin/env python3
"""Make random affine-quantized rows of every width and group, and the floats that MLX reads in them.

Needs: pip install mlx[cpu]==0.32.4 numpy      Use: make_affine.py
Writes affine.bin: for each width, group and type of scales, in the order of the loops below, the
codes, scales, biases of a matrix of 3 rows by 256 and, as F32, its elements (little endian).
MLX computes in the type of the scales, so only with F32 scales the elements are free of its rounding.
"""
import pathlib

import mlx.core as mx
import numpy as np

ROWS, COLS = 3, 256

rng = np.random.default_rng(20261122)
out = b""
for bits in (2, 3, 4, 5, 6, 8):
    for group in (32, 64, 128):
        for kind in (mx.float32, mx.float16, mx.bfloat16) if group == 64 else (mx.float32,):
            codes = mx.array(rng.integers(0, 1 << 32, (ROWS, COLS * bits // 32), dtype=np.uint32))
            scales, biases = (
                mx.array(rng.normal(0, size, (ROWS, COLS // group)).astype("<f4")).astype(kind) for size in (0.05, 1)
            )
            floats = mx.dequantize(codes, scales, biases, group_size=group, bits=bits)
            assert floats.shape == (ROWS, COLS) and floats.dtype == kind
            for array in (codes, *(a if kind == mx.float32 else a.view(mx.uint16) for a in (scales, biases))):
                out += np.array(array).tobytes()
            out += np.array(floats.astype(mx.float32)).astype("<f4").tobytes()
(pathlib.Path(__file__).parent / "affine.bin").write_bytes(out)
