//! Parses a GGUF file, reads everything it gives access to, and writes it again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tercel_formats::Gguf;
use tercel_formats::gguf::{Array, Metadata, Value, Writer};

fuzz_target!(|file: &[u8]| {
    match Gguf::parse(file) {
        Ok(gguf) => {
            walk_metadata(gguf.metadata());
            walk_tensors(&gguf, file);
            write_again(&gguf);
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
});

fn walk_metadata(metadata: &Metadata<'_>) {
    for (key, value) in metadata.iter() {
        assert_eq!(metadata.get(key).map(Value::kind), Some(value.kind()));
        // An error is fine for any of these; a panic is not.
        let _ = metadata.str(key);
        let _ = metadata.u32(key);
        let _ = metadata.f32(key);
        let _ = metadata.bool(key);
        let _ = metadata.f32s(key);
        let _ = metadata.i32s(key);
        if let Ok(Some(strings)) = metadata.strings(key) {
            assert_eq!(strings.iter().count(), strings.len());
        }
        if let Value::Array(array) = value {
            walk_array(array);
        }
    }
}

fn walk_array(array: &Array<'_>) {
    let mut count = 0;
    for value in array.iter() {
        assert_eq!(value.kind(), array.kind());
        if let Value::Array(inner) = &value {
            walk_array(inner);
        }
        count += 1;
    }
    assert_eq!(count, array.len());
}

fn walk_tensors(gguf: &Gguf<'_>, file: &[u8]) {
    let inside = file.as_ptr_range();
    for tensor in gguf.tensors() {
        assert_eq!(
            gguf.tensor(tensor.name).map(|found| found.name),
            Some(tensor.name)
        );
        assert_eq!(
            tensor.dtype.bytes_for(tensor.elements()),
            Some(tensor.data.len())
        );
        let data = tensor.data.as_ptr_range();
        assert!(inside.start <= data.start && data.end <= inside.end);
    }
}

/// Writing what was read gives a file with the same contents, and writing that changes nothing.
fn write_again(gguf: &Gguf<'_>) {
    // Alignment pads every tensor: a small file must not become a large one here.
    if gguf.tensors().len().saturating_mul(gguf.alignment()) > 1 << 20 {
        return;
    }
    let first = written(gguf);
    let parsed = Gguf::parse(&first).expect("the writer keeps the rules of the reader");
    assert_eq!(parsed.tensors(), gguf.tensors());
    assert!(written(&parsed) == first);
}

fn written(gguf: &Gguf<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    Writer::from(gguf)
        .write_to(&mut file)
        .expect("memory takes all bytes");
    file
}
