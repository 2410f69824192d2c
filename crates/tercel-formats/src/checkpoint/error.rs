//! What can be wrong with a checkpoint.

use crate::GgufError;

/// Why files are not a checkpoint that can be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A GGUF file is damaged.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The parts of a split GGUF file do not belong together.
    #[error("{problem}")]
    Split {
        /// What is wrong.
        problem: String,
    },
    /// A JSON file does not say what it must.
    #[error("{file}: {problem}")]
    Json {
        /// The file's name.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A safetensors file is damaged.
    #[error("{file}: {problem}")]
    SafeTensors {
        /// The file's name.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// The index names a tensor that its file does not have.
    #[error("{file} has no tensor `{name}`, which the index says is in it")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The file.
        file: String,
    },
    /// A file has a tensor that the index does not name, or has in another file.
    #[error("{file} has a tensor `{name}`, which the index does not say is in it")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
        /// The file.
        file: String,
    },
    /// Two tensors have one name.
    #[error("there are two tensors `{name}`")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// The weights are quantized by a method that is not known.
    #[error("the weights are quantized by `{method}`, which is not supported{}", at(.tensor))]
    UnsupportedQuantization {
        /// The method, as the files name it.
        method: String,
        /// A tensor that shows it, where it is not the configuration that says so.
        tensor: Option<String>,
    },
    /// The arrays of a quantized tensor do not fit each other.
    #[error("tensor `{name}`: {problem}")]
    Quantization {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

fn at(tensor: &Option<String>) -> String {
    tensor
        .as_ref()
        .map_or_else(String::new, |name| format!(" (tensor `{name}`)"))
}
