//! One file per family. Adding one is a file and a line in [`FAMILIES`].

mod decoder;
mod gemma3;
mod llama;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod rotary;
mod windows;

use tercel_formats::checkpoint::{Checkpoint, Field, Packaging};
use tercel_kernels::Target;

use crate::NnError;
use crate::backend::{Backend, Outputs};
use crate::loader::{Loader, Plan, Spelling};
use crate::runner::ModelInfo;

/// A model, as its constructor made it.
pub(crate) trait Model: Send {
    /// Its sizes.
    fn info(&self) -> &ModelInfo;

    /// What is wanted of the tokens of the pass.
    fn forward(&self, run: &mut dyn Backend) -> Outputs;
}

type Constructor = fn(&mut Loader<'_, '_>) -> Result<Box<dyn Model>, NnError>;

/// A family of models that share their structure.
#[derive(Debug)]
pub(crate) struct Family {
    /// The architecture in GGUF files.
    pub(crate) name: &'static str,
    /// The values of `model_type` in `config.json`, those of wrappers with other parts included.
    pub(crate) model_types: &'static [&'static str],
    /// Tensors whose names in safetensors differ from those that most families use: the part of
    /// the name in GGUF files, and there.
    pub(crate) tensors: &'static [(&'static str, &'static str)],
    /// Fields that `config.json` may leave out, since `transformers` has a default for them.
    pub(crate) defaults: &'static [(&'static str, usize)],
    construct: Constructor,
}

const FAMILIES: &[Family] = &[
    gemma3::FAMILY,
    llama::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3_moe::FAMILY,
    qwen3_5::FAMILY,
];

/// A model and the plan of what it needs.
pub(crate) struct Constructed<'a> {
    pub(crate) model: Box<dyn Model>,
    pub(crate) plan: Plan<'a>,
    /// The sizes of the model.
    pub(crate) info: ModelInfo,
}

/// Makes the model that a checkpoint names.
pub(crate) fn construct<'a>(
    checkpoint: &Checkpoint<'a>,
    target: Target,
) -> Result<Constructed<'a>, NnError> {
    let mut loader = loader(checkpoint, target)?;
    let (model, info) = construct_model(&mut loader)?;
    Ok(Constructed {
        model,
        plan: loader.plan,
        info,
    })
}

/// What reads a checkpoint of a known family.
pub(crate) fn loader<'c, 'a>(
    checkpoint: &'c Checkpoint<'a>,
    target: Target,
) -> Result<Loader<'c, 'a>, NnError> {
    Ok(Loader::new(checkpoint, family(checkpoint)?, target))
}

/// Plans the model of a loader, and gives its sizes.
pub(crate) fn construct_with(loader: &mut Loader<'_, '_>) -> Result<ModelInfo, NnError> {
    construct_model(loader).map(|(_, info)| info)
}

fn construct_model(loader: &mut Loader<'_, '_>) -> Result<(Box<dyn Model>, ModelInfo), NnError> {
    let model = (loader.construct())(loader)?;
    let left_out = loader.check_all_used()?;
    let info = ModelInfo {
        parameters: loader.parameters(),
        left_out,
        ..model.info().clone()
    };
    Ok((model, info))
}

/// The names of the families that this build runs.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

/// What transformers calls a family and its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Naming(&'static Family);

impl Naming {
    /// The naming of the family that GGUF files call `architecture`.
    pub fn of(architecture: &str) -> Option<Self> {
        let mut families = FAMILIES.iter();
        families
            .find(|family| family.name == architecture)
            .map(Self)
    }

    /// `model_type` of a model that is nothing but text.
    pub fn model_type(&self) -> &'static str {
        self.0.model_types.first().copied().unwrap_or(self.0.name)
    }

    /// The name of the tensor that GGUF calls `name`.
    pub fn tensor(&self, name: &str) -> String {
        Spelling::plain(self.0.tensors).tensor(name)
    }
}

fn family(checkpoint: &Checkpoint<'_>) -> Result<&'static Family, NnError> {
    let field = match checkpoint.packaging() {
        Packaging::Gguf => "general.architecture",
        _ => "model_type",
    };
    let name = match checkpoint.field(field) {
        Some(Field::Text(name)) => name,
        other => {
            let found = other.map_or("missing".to_owned(), |other| other.describe());
            return Err(NnError::Config {
                field: field.to_owned(),
                problem: format!("{found}; it must name an architecture"),
            });
        }
    };
    let known = |family: &&Family| match checkpoint.packaging() {
        Packaging::Gguf => family.name == name,
        _ => family.model_types.contains(&name),
    };
    FAMILIES
        .iter()
        .find(known)
        .ok_or_else(|| NnError::UnknownArchitecture {
            name: name.to_owned(),
            supported: architectures().collect::<Vec<_>>().join(", "),
        })
}

impl Loader<'_, '_> {
    fn construct(&self) -> Constructor {
        // The loader was made for a family of this table.
        let own = FAMILIES.iter().find(|family| family.name == self.family());
        own.map_or(llama::FAMILY.construct, |family| family.construct)
    }

    /// Refuses a configuration whose `field` is neither missing nor `value`.
    fn only(&self, field: &str, value: &str) -> Result<(), NnError> {
        match self.text(field)? {
            Some(other) if other != value => Err(self.refuse(
                field,
                format!("`{other}` is not supported (supported: {value})"),
            )),
            _ => Ok(()),
        }
    }
}
