//! The tensors of a model by function, and what quantizing it on load would make of them.

use std::collections::BTreeMap;

use tercel::{Function, Packing, PlannedTensor, Treatment};

use super::{print, shown};
use crate::failure::Failure;
use crate::format;
use crate::output::Output;

/// Sums by function, then every tensor.
pub(super) fn show(tensors: &[PlannedTensor], quantize: &str, out: Output) -> Result<(), Failure> {
    let after = format!("AS {}", quantize.to_uppercase());
    sums(tensors, &after, out)?;
    let mut tensors: Vec<&PlannedTensor> = tensors.iter().collect();
    // Stable: the order of the files stays within a function.
    tensors.sort_by_key(|tensor| tensor.function);
    let rows: Vec<_> = tensors.iter().map(|tensor| row(tensor)).collect();
    let header = [
        "FUNCTION", "TENSOR", "SHAPE", "TYPE", "SIZE", "BECOMES", &after, "NOTE",
    ];
    print(&format::table(header, &[4, 6], &rows), out)
}

fn sums(tensors: &[PlannedTensor], after: &str, out: Output) -> Result<(), Failure> {
    let mut groups = BTreeMap::<Function, (usize, u64, u64)>::new();
    for tensor in tensors {
        let (count, bytes, bytes_after) = groups.entry(tensor.function).or_default();
        *count += 1;
        *bytes += tensor.bytes;
        *bytes_after += tensor.bytes_after;
    }
    let row = |name: &str, (count, bytes, bytes_after): (usize, u64, u64)| {
        [
            name.to_owned(),
            count.to_string(),
            format::bytes(bytes),
            format::bytes(bytes_after),
        ]
    };
    let total = groups.values().fold((0, 0, 0), |sum, group| {
        (sum.0 + group.0, sum.1 + group.1, sum.2 + group.2)
    });
    let groups = groups
        .iter()
        .map(|(function, group)| row(function.name(), *group));
    let rows: Vec<_> = groups.chain([row("all", total)]).collect();
    let header = ["FUNCTION", "TENSORS", "SIZE", after];
    print(&format::table(header, &[1, 2, 3], &rows), out)
}

fn row(tensor: &PlannedTensor) -> [String; 8] {
    let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
    let notes = [packing(tensor), treatment(tensor)];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    [
        tensor.function.name().to_owned(),
        shown(&tensor.name),
        shape.join(" x "),
        tensor.dtype.clone(),
        format::bytes(tensor.bytes),
        tensor.becomes.clone().unwrap_or_else(|| "-".to_owned()),
        format::bytes(tensor.bytes_after),
        notes.join("; "),
    ]
}

fn packing(tensor: &PlannedTensor) -> Option<String> {
    Some(match tensor.packing? {
        Packing::Fused { parts } => format!("{parts} matrices fused, cut by rows"),
        Packing::Stacked { experts } => format!("{experts} experts stacked"),
        Packing::StackedFused { experts, parts } => {
            format!("{experts} experts stacked, {parts} matrices of each fused")
        }
        _ => return None,
    })
}

/// Why a tensor is not quantized as asked.
fn treatment(tensor: &PlannedTensor) -> Option<String> {
    let reason = match tensor.treatment {
        Treatment::Finer => "embedding and head get more bits",
        Treatment::Fallback => {
            let cols = tensor.shape.last().copied().unwrap_or(0);
            return Some(format!("blocks do not divide rows of {cols}"));
        }
        Treatment::Delicate => "small and sensitive: kept as stored",
        Treatment::AlreadyQuantized => "quantized already",
        Treatment::Vector => "vector: kept in single floats",
        Treatment::NotLoaded => "no part of the text model",
        _ => return None,
    };
    Some(reason.to_owned())
}
