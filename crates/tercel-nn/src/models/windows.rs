//! Which layers see a window of the last tokens only.

use tercel_formats::checkpoint::Field;

use crate::NnError;
use crate::loader::Loader;
use crate::runner::ModelInfo;

const PATTERN: &str = "attention.sliding_window_pattern";
const TYPES: &str = "layer_types";

/// The window of each layer. `default` says of a layer's number whether it has one where the
/// configuration does not.
pub(super) fn read(
    w: &Loader<'_, '_>,
    info: &ModelInfo,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, NnError> {
    let windowed = windowed(w, info, default)?;
    Ok(windowed
        .into_iter()
        .map(|windowed| info.sliding_window.filter(|_| windowed))
        .collect())
}

fn windowed(
    w: &Loader<'_, '_>,
    info: &ModelInfo,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, NnError> {
    let layers = 0..info.n_layers;
    if let Some(Field::List(types)) = w.field(TYPES) {
        let one = |kind: &Field<'_>| match kind {
            Field::Text("sliding_attention") => Some(true),
            Field::Text("full_attention") => Some(false),
            _ => None,
        };
        let types = types.iter().map(one).collect();
        return for_each_layer(
            w,
            info,
            TYPES,
            types,
            "`full_attention` or `sliding_attention`",
        );
    }
    if let Some(Field::List(flags)) = w.field(PATTERN) {
        let one = |flag: &Field<'_>| match flag {
            Field::Bool(windowed) => Some(*windowed),
            _ => None,
        };
        return for_each_layer(w, info, PATTERN, flags.iter().map(one).collect(), "bool");
    }
    if w.has_field(PATTERN) {
        let period = w.count(PATTERN, 1..=1024)?;
        return Ok(layers
            .map(|layer| !(layer + 1).is_multiple_of(period))
            .collect());
    }
    if w.has_field("max_window_layers") {
        let first = w.count("max_window_layers", 0..=1024)?;
        return Ok(layers.map(|layer| layer >= first).collect());
    }
    Ok(layers.map(default).collect())
}

fn for_each_layer(
    w: &Loader<'_, '_>,
    info: &ModelInfo,
    key: &str,
    layers: Option<Vec<bool>>,
    what: &str,
) -> Result<Vec<bool>, NnError> {
    layers
        .filter(|layers| layers.len() == info.n_layers)
        .ok_or_else(|| {
            w.refuse(
                key,
                format!("not one {what} for each of {} layers", info.n_layers),
            )
        })
}
