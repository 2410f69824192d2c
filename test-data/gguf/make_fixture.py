"""Writes fixture.gguf with the reference implementation of the format.

Run `python make_fixture.py` with the PyPI packages gguf 0.19.0 and numpy. The values are repeated
in crates/tercel-formats/tests/gguf_reference.rs, which reads the file.
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as T
from gguf import GGUFWriter
from gguf.quants import quantize

writer = GGUFWriter(Path(__file__).with_name("fixture.gguf"), "fixture")
writer.add_custom_alignment(64)
writer.add_uint8("value.u8", 200)
writer.add_int8("value.i8", -100)
writer.add_uint16("value.u16", 60_000)
writer.add_int16("value.i16", -30_000)
writer.add_uint32("value.u32", 4_000_000_000)
writer.add_int32("value.i32", -2_000_000_000)
writer.add_float32("value.f32", 0.1)
writer.add_bool("value.bool.true", True)
writer.add_bool("value.bool.false", False)
writer.add_string("value.string", "gr\u00fc\u00df dich, \u4e16\u754c \U0001f30d\n")
writer.add_uint64("value.u64", 2**64 - 1)
writer.add_int64("value.i64", -(2**63))
writer.add_float64("value.f64", 1e300)


def array(name, items, kind):
    writer.add_key_value(f"array.{name}", items, T.ARRAY, kind)


array("u8", [0, 1, 255], T.UINT8)
array("i8", [-128, 127], T.INT8)
array("u16", [65_535], T.UINT16)
array("i16", [-32_768, 3], T.INT16)
array("u32", [1, 4_294_967_295], T.UINT32)
array("i32", [-2_147_483_648, 7, 2_147_483_647], T.INT32)
array("f32", [0.5, -1.25, 3e38], T.FLOAT32)
array("bool", [True, False, True], T.BOOL)
array("string", ["<s>", "", "\u2581the", "\u00e9"], T.STRING)
array("u64", [2**63], T.UINT64)
array("i64", [-1, 1], T.INT64)
array("f64", [0.1, -2.5], T.FLOAT64)
array("nested", [[1, 2], ["a", "b", "c"], [[1.5]]], T.ARRAY)

rows = np.arange(3 * 256, dtype=np.float32).reshape(3, 256) / 64 - 5
writer.add_tensor("plain.f32", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
writer.add_tensor("plain.f16", np.array([0.5, -2.0, 65504.0], dtype=np.float16))
writer.add_tensor("plain.f64", np.array([1e300], dtype=np.float64))
writer.add_tensor("plain.i8", np.array([[-128, 127], [1, 2]], dtype=np.int8))
writer.add_tensor("plain.i16", np.array([-32_768], dtype=np.int16))
writer.add_tensor("plain.i32", np.array([1 << 30, -1], dtype=np.int32))
writer.add_tensor("plain.i64", np.arange(4, dtype=np.int64).reshape(2, 1, 1, 2))
for kind in (Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0):
    name = f"blocks.{kind.name.lower()}"
    writer.add_tensor(name, quantize(rows[:, :64], kind), raw_dtype=kind)
# The package cannot make these: the bytes count up from the id of the type.
for kind, size in ((Q.Q4_K, 144), (Q.Q6_K, 210), (Q.IQ4_NL, 144), (Q.MXFP4, 136)):
    name = f"blocks.{kind.name.lower()}"
    data = (np.arange(2 * size) + kind).astype(np.uint8).reshape(2, size)
    writer.add_tensor(name, data, raw_dtype=kind)

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
