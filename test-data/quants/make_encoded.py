#!/usr/bin/env python3
"""Make rows of floats and the blocks that the `gguf` package writes them as.

Needs: pip install gguf==0.19.0 numpy      Use: make_encoded.py
Writes encoded.f32 (4 rows of 512 floats, little endian) and encoded_NAME.bin for each format that the
package can write.
"""
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import quantize

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(20261123)
rows = rng.normal(0, 0.05, (4, 512)).astype("<f4")
rows[1, ::37] *= 40  # outliers
rows[2] += np.float32(0.3)  # all of one sign, almost
rows[3, :32] = 0
rows[3, 32:64] = 1.5
rows[3, 64:96] = -0.25
rows[3, 96:128] = np.arange(32) - 16  # ties
rows[3, 128:160] *= np.float32(1e-4)
rows[3, 160:192] *= np.float32(1e5)
rows[3, 192:224] = (np.arange(32) % 9 - 4) / 8  # two largest of different sign
(here / "encoded.f32").write_bytes(rows.tobytes())
for kind in (T.F16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1):
    (here / f"encoded_{kind.name.lower()}.bin").write_bytes(quantize(rows, kind).tobytes())
