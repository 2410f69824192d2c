//! One file per architecture. Adding one is a file and a line in [`MODELS`].

mod gemma3;
mod llama;

use crate::NnError;
use crate::backend::{Act, Backend};
use crate::loader::Loader;
use crate::runner::ModelInfo;

/// A model, as its constructor made it.
pub(crate) trait Model: Send {
    /// Its sizes.
    fn info(&self) -> &ModelInfo;

    /// The logits of the wanted outputs, `(outputs, vocab_size)`.
    fn forward(&self, run: &mut dyn Backend) -> Act;
}

type Constructor = fn(&mut Loader<'_, '_>) -> Result<Box<dyn Model>, NnError>;

/// The architectures, by the name that GGUF files use.
const MODELS: &[(&str, Constructor)] = &[
    ("gemma3", |loader| {
        Ok(Box::new(gemma3::Gemma3::new(loader)?))
    }),
    ("llama", |loader| Ok(Box::new(llama::Llama::new(loader)?))),
];

/// Makes the model that the file names.
pub(crate) fn construct(loader: &mut Loader<'_, '_>) -> Result<Box<dyn Model>, NnError> {
    let name = loader.architecture();
    let found = MODELS.iter().find(|(known, _)| *known == name);
    let (_, constructor) = found.ok_or_else(|| NnError::UnknownArchitecture {
        name: name.to_owned(),
        supported: architectures().collect::<Vec<_>>().join(", "),
    })?;
    let model = constructor(loader)?;
    loader.check_all_used()?;
    Ok(model)
}

/// The names of the architectures that this build runs.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// The factor by which positions are compressed (Chen et al., 2023); 1 where they are not.
fn linear_scaling(w: &Loader<'_, '_>) -> Result<f64, NnError> {
    match w.text("rope.scaling.type")? {
        Some("none") => Ok(1.0),
        // Files of old name no type, or have the factor under another name.
        None | Some("linear") => {
            let factor = w.positive_or("rope.scale_linear", 1.0)?;
            Ok(f64::from(w.positive_or("rope.scaling.factor", factor)?))
        }
        Some(other) => Err(NnError::Config {
            field: w.key("rope.scaling.type"),
            problem: format!("`{other}` is not supported (supported: none, linear)"),
        }),
    }
}
