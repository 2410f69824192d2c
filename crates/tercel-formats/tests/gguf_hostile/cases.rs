//! Hand-made files, one for each rule, with what the reader says about them.

use crate::raw::{ARRAY, BOOL, F32, I8, I32, I64, Q8_0, Raw, STRING, U8, U32, U64, rich};

/// A name, a file, and the message of the error or nothing for a valid file.
pub(crate) type Case = (&'static str, Raw, Option<&'static str>);

/// The list of llama.cpp's `tests/test-gguf.cpp`, under its names and in its order.
///
/// Verdicts are the same except for three files. It reads tensors without elements, which are
/// refused here (`tensors_zero_dim`), and it can read a header whose tensor data is absent, while
/// here data is always checked (`tensors_success`, `tensors_custom_align`).
pub(crate) fn llama_cpp() -> Vec<Case> {
    let empty = |version| Raw::file(version, 0, 0);
    let entry = || Raw::file(3, 0, 1);
    let tensor = || Raw::file(3, 1, 0);
    let pair = |alignment: u32| {
        Raw::file(3, 2, 1)
            .alignment(alignment)
            .tensor("a", &[3], I8, 0)
            .tensor("b", &[2], I8, 3)
    };
    vec![
        (
            "header_bad_magic",
            Raw::default().bytes(b"FUGG").u32(3).u64(0).u64(0),
            Some(r#"not a GGUF file (it starts with "FUGG")"#),
        ),
        (
            "header_bad_version_0",
            empty(0),
            Some("GGUF version 0 is not supported, 2 and 3 are; convert the model again"),
        ),
        (
            "header_bad_version_1",
            empty(1),
            Some("GGUF version 1 is not supported, 2 and 3 are; convert the model again"),
        ),
        (
            "header_bad_version_future",
            empty(4),
            Some("GGUF version 4 is not supported, 2 and 3 are; convert the model again"),
        ),
        (
            "header_bad_n_kv",
            Raw::file(3, 0, u64::MAX),
            Some("`metadata count` is 18446744073709551615, the limit is 16384"),
        ),
        (
            "header_bad_n_tensors",
            Raw::file(3, u64::MAX, 0),
            Some("`tensor count` is 18446744073709551615, the limit is 32768"),
        ),
        ("header_empty", empty(3).pad(32), None),
        (
            "kv_bad_key_size",
            entry().u64(u64::MAX).bytes(b"key").u32(U32).u32(1),
            Some("`metadata[0].key` is 18446744073709551615, the limit is 65535"),
        ),
        (
            "kv_empty_key",
            entry().key("", U32).u32(1).pad(32),
            Some("`metadata[0].key` is empty"),
        ),
        (
            "kv_bad_type",
            entry().key("key", 13).u8(1).pad(32),
            Some("`key` has the unknown value type 13"),
        ),
        (
            "kv_duplicate_key",
            Raw::file(3, 0, 3)
                .key("a", U8)
                .u8(1)
                .key("b", U8)
                .u8(1)
                .key("a", BOOL)
                .u8(1),
            Some("the key `a` appears twice"),
        ),
        (
            "kv_bad_align",
            entry().alignment(13),
            Some("`general.alignment` is 13, a u32 power of two up to 1048576 is needed"),
        ),
        (
            "kv_wrong_type_align",
            entry().key("general.alignment", I32).u32(32),
            Some("`general.alignment` is i32, a u32 power of two up to 1048576 is needed"),
        ),
        (
            "kv_success",
            Raw::file(3, 0, 2)
                .key("a", U8)
                .u8(1)
                .key("b", STRING)
                .str("text"),
            None,
        ),
        (
            "tensors_bad_name_size",
            tensor().tensor([b'n'; 65], &[1], I8, 0).data(32, 1),
            Some("`tensors[0].name` is 65, the limit is 64"),
        ),
        (
            "tensors_bad_n_dims",
            tensor().tensor("t", &[1; 5], I8, 0).data(32, 1),
            Some("tensor `t` has 5 dimensions, 1 to 4 are possible"),
        ),
        (
            "tensors_bad_shape",
            tensor().tensor("t", &[u64::MAX], I8, 0).data(32, 1),
            Some("tensor `t` of shape [18446744073709551615] is larger than any memory"),
        ),
        (
            "tensors_zero_dim",
            tensor().tensor("t", &[4, 0], F32, 0).data(32, 16),
            Some("tensor `t` has the shape [4, 0], no dimension may be zero"),
        ),
        (
            "tensors_ne_too_big",
            tensor().tensor("t", &[8_589_934_588; 2], I8, 0).data(32, 1),
            Some("tensor `t` of shape [8589934588, 8589934588] is larger than any memory"),
        ),
        (
            "tensors_nbytes_too_big",
            tensor()
                .tensor("t", &[1_533_850_304; 2], I64, 0)
                .data(32, 1),
            Some("tensor `t` of shape [1533850304, 1533850304] is larger than any memory"),
        ),
        (
            "tensors_bad_type",
            tensor().tensor("t", &[1], 1_000, 0).data(32, 4),
            Some("tensor `t` has the unknown type 1000; a newer version may read it"),
        ),
        (
            "tensors_bad_offset",
            tensor().tensor("t", &[1], I8, u64::MAX).data(32, 1),
            Some(
                "tensor `t` has the data offset 18446744073709551615, not a multiple of the \
                 alignment 32",
            ),
        ),
        (
            "tensors_duplicate_name",
            Raw::file(3, 2, 0)
                .tensor("t", &[1], I8, 0)
                .tensor("t", &[1], I8, 32)
                .data(32, 64),
            Some("the tensor `t` appears twice"),
        ),
        (
            "tensors_bad_align",
            pair(13),
            Some("`general.alignment` is 13, a u32 power of two up to 1048576 is needed"),
        ),
        (
            "tensors_inconsistent_align",
            Raw::file(3, 2, 0)
                .tensor("a", &[3], I8, 0)
                .tensor("b", &[2], I8, 3)
                .data(32, 5),
            Some("tensor `b` has the data offset 3, not a multiple of the alignment 32"),
        ),
        (
            "tensors_success",
            tensor().tensor("t", &[4], F32, 0),
            Some("tensor `t` needs 16 bytes at offset 0 of the data section, which has 0"),
        ),
        (
            "tensors_custom_align",
            pair(1),
            Some("tensor `a` needs 3 bytes at offset 0 of the data section, which has 0"),
        ),
        (
            "data_not_enough_data",
            tensor().tensor("t", &[4], F32, 0).data(32, 15),
            Some("tensor `t` needs 16 bytes at offset 0 of the data section, which has 15"),
        ),
        (
            "data_bad_align",
            pair(13).data(1, 5),
            Some("`general.alignment` is 13, a u32 power of two up to 1048576 is needed"),
        ),
        (
            "data_inconsistent_align",
            Raw::file(3, 2, 0)
                .tensor("a", &[8], F32, 0)
                .tensor("b", &[1], I8, 33)
                .data(32, 64),
            Some("tensor `b` has the data offset 33, not a multiple of the alignment 32"),
        ),
        (
            "data_mem_size_overflow",
            Raw::file(3, 2, 0)
                .tensor("a", &[0x7fff_ffff_ffff_ffc0], I8, 0)
                .tensor("b", &[0x7fff_ffff_ffff_ffc0], I8, 0x7fff_ffff_ffff_ffc0)
                .data(32, 32),
            Some(
                "tensor `a` needs 9223372036854775744 bytes at offset 0 of the data section, \
                 which has 32",
            ),
        ),
        (
            "data_success",
            tensor().tensor("t", &[4], F32, 0).data(32, 16),
            None,
        ),
        ("data_custom_align", pair(1).data(1, 5), None),
    ]
}

/// Rules and limits beyond that list.
pub(crate) fn more() -> Vec<Case> {
    let entry = || Raw::file(3, 0, 1);
    let tensor = || Raw::file(3, 1, 0);
    let nested = |depth: usize| {
        let raw = (1..depth).fold(entry().key("a", ARRAY), |raw, _| raw.u32(ARRAY).u64(1));
        raw.u32(U8).u64(1).u8(7)
    };
    vec![
        (
            "no_bytes",
            Raw::default(),
            Some(r#"not a GGUF file (it starts with "")"#),
        ),
        (
            "half_a_magic",
            Raw::default().bytes(b"GG"),
            Some(r#"not a GGUF file (it starts with "GG")"#),
        ),
        (
            "binary_start",
            Raw::default().bytes(b"\x80\x02}\n\"x"),
            Some(r#"not a GGUF file (it starts with "\x80\x02}\n")"#),
        ),
        (
            "big_endian",
            Raw::default().bytes(b"GGUF\0\0\0\x03").bytes(&[0; 16]),
            Some("a big-endian GGUF file is not supported; convert the model to little-endian"),
        ),
        ("version_2", Raw::file(2, 0, 1).key("a", U8).u8(1), None),
        ("rich", Raw(rich().0), None),
        (
            "trailing_bytes",
            tensor().tensor("t", &[1], I8, 0).data(32, 1).bytes(b"more"),
            None,
        ),
        (
            "entries_beyond_the_file",
            Raw::file(3, 0, 16_384).pad(4_096),
            Some("truncated: `metadata` needs 229376 bytes at offset 24, the file ends at 4096"),
        ),
        (
            "tensors_beyond_the_file",
            Raw::file(3, 32_768, 0).pad(4_096),
            Some(
                "truncated: `tensor entries` needs 1081344 bytes at offset 24, the file ends at \
                 4096",
            ),
        ),
        (
            "key_too_long",
            entry().key(vec![b'k'; 65_536], U8).u8(1),
            Some("`metadata[0].key` is 65536, the limit is 65535"),
        ),
        (
            "key_longest",
            entry().key(vec![b'k'; 65_535], U8).u8(1),
            None,
        ),
        (
            "key_beyond_the_file",
            entry().u64(600).bytes(&[b'k'; 40]),
            Some("truncated: `metadata[0].key` needs 600 bytes at offset 32, the file ends at 72"),
        ),
        (
            "key_not_utf8",
            entry().key(b"\xff\xfe", U8).u8(1),
            Some("`metadata[0].key` at offset 32 is not valid UTF-8"),
        ),
        (
            "key_shown_on_one_line",
            entry().key("a\nb\x1b[31m", 99).u8(1),
            Some(r"`a\nb\u{1b}[31m` has the unknown value type 99"),
        ),
        (
            "key_shown_in_part",
            entry().key([b'k'; 5_000], 99).u8(1),
            Some(
                "`kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\
                 kkkkkkkkkkkkkkkk...` has the unknown value type 99",
            ),
        ),
        (
            "string_not_utf8",
            entry().key("text", STRING).str(b"a\xc3("),
            Some("`text` at offset 48 is not valid UTF-8"),
        ),
        (
            "string_surrogate",
            entry().key("text", STRING).str(b"\xed\xa0\x80"),
            Some("`text` at offset 48 is not valid UTF-8"),
        ),
        (
            "string_too_long",
            entry().key("text", STRING).u64((64 << 20) + 1),
            Some("`text` is 67108865, the limit is 67108864"),
        ),
        (
            "string_beyond_the_file",
            entry().key("text", STRING).u64(64 << 20).bytes(b"short"),
            Some("truncated: `text` needs 67108864 bytes at offset 48, the file ends at 53"),
        ),
        (
            "bool_2",
            entry().key("b", BOOL).u8(2),
            Some("`b` is the truth value 2, 0 or 1 is needed"),
        ),
        (
            "bool_array_2",
            entry().array("b", BOOL, 3).bytes(&[1, 0, 255]),
            Some("`b[2]` is the truth value 255, 0 or 1 is needed"),
        ),
        (
            "array_bad_type",
            entry().array("a", 77, 0).pad(32),
            Some("`a` has the unknown value type 77"),
        ),
        (
            "array_too_long",
            entry().array("a", U8, u64::MAX),
            Some("`a length` is 18446744073709551615, the limit is 16777216"),
        ),
        (
            "array_beyond_the_file",
            entry().array("a", U64, 16 << 20).pad(32),
            Some("truncated: `a` needs 134217728 bytes at offset 49, the file ends at 64"),
        ),
        (
            "strings_beyond_the_file",
            entry().array("a", STRING, 16 << 20).pad(32),
            Some("truncated: `a` needs 134217728 bytes at offset 49, the file ends at 64"),
        ),
        (
            "string_in_array_beyond_the_file",
            entry()
                .array("tokens", STRING, 2)
                .str("one")
                .u64(12)
                .bytes(b"two"),
            Some("truncated: `tokens[1]` needs 12 bytes at offset 73, the file ends at 76"),
        ),
        (
            "string_in_array_not_utf8",
            entry().array("tokens", STRING, 2).str("one").str(b"\x80"),
            Some("`tokens[1]` at offset 73 is not valid UTF-8"),
        ),
        ("array_empty", entry().array("a", STRING, 0), None),
        ("array_nested_4", nested(4), None),
        (
            "array_nested_5",
            nested(5),
            Some("`a[0][0][0][0] nesting depth` is 5, the limit is 4"),
        ),
        (
            "array_nested_1000000",
            nested(1_000_000),
            Some("`a[0][0][0][0] nesting depth` is 5, the limit is 4"),
        ),
        (
            "array_nested_bad_element",
            entry()
                .array("a", ARRAY, 2)
                .u32(U8)
                .u64(0)
                .u32(BOOL)
                .u64(1)
                .u8(9),
            Some("`a[1][0]` is the truth value 9, 0 or 1 is needed"),
        ),
        (
            "alignment_0",
            entry().alignment(0),
            Some("`general.alignment` is 0, a u32 power of two up to 1048576 is needed"),
        ),
        ("alignment_1048576", entry().alignment(1 << 20), None),
        (
            "alignment_2097152",
            entry().alignment(1 << 21),
            Some("`general.alignment` is 2097152, a u32 power of two up to 1048576 is needed"),
        ),
        (
            "alignment_array",
            entry().array("general.alignment", U32, 1).u32(32),
            Some("`general.alignment` is array of u32, a u32 power of two up to 1048576 is needed"),
        ),
        (
            "name_empty",
            tensor().tensor("", &[1], I8, 0).data(32, 1),
            Some("`tensors[0].name` is empty"),
        ),
        (
            "name_not_utf8",
            tensor().tensor(b"\xc0\x80", &[1], I8, 0).data(32, 1),
            Some("`tensors[0].name` at offset 32 is not valid UTF-8"),
        ),
        (
            "name_longest",
            tensor().tensor([b'n'; 64], &[1], I8, 0).data(32, 1),
            None,
        ),
        (
            "dims_0",
            tensor().tensor("t", &[], I8, 0).data(32, 9),
            Some("tensor `t` has 0 dimensions, 1 to 4 are possible"),
        ),
        (
            "type_removed",
            tensor().tensor("t", &[32], 31, 0).data(32, 32),
            Some("tensor `t` has the unknown type 31; a newer version may read it"),
        ),
        (
            "partial_block",
            tensor().tensor("t", &[33, 32], Q8_0, 0).data(32, 2_000),
            Some("tensor `t` has rows of 33 elements, Q8_0 needs a multiple of 32"),
        ),
        (
            "offset_beyond_the_file",
            tensor().tensor("t", &[1], I8, 1 << 63).data(32, 1),
            Some(
                "tensor `t` needs 1 bytes at offset 9223372036854775808 of the data section, \
                 which has 1",
            ),
        ),
        (
            "overlap",
            Raw::file(3, 2, 0)
                .tensor("a", &[32], I8, 32)
                .tensor("b", &[33], I8, 0)
                .data(32, 64),
            Some("the tensors `b` and `a` overlap"),
        ),
        (
            "same_data",
            Raw::file(3, 2, 0)
                .tensor("a", &[8], I8, 0)
                .tensor("b", &[8], I8, 0)
                .data(32, 64),
            Some("the tensors `a` and `b` overlap"),
        ),
        (
            "any_order_and_holes",
            Raw::file(3, 2, 0)
                .tensor("a", &[32], I8, 96)
                .tensor("b", &[32], I8, 0)
                .data(32, 128),
            None,
        ),
    ]
}
