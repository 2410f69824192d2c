//! The models that are measured, and what reading them costs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;
use crate::{models, process};

/// A model file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subject {
    /// Its name in the catalog, or that of its file.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) facts: Facts,
}

/// What `tercel inspect` and `tercel kv-size` say of a model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) architecture: String,
    pub(crate) parameters: u64,
    /// The type of most of its matrices.
    pub(crate) dtype: String,
    pub(crate) trained_context: u64,
    /// Read for every token that is generated. None where that depends on the token.
    pub(crate) weight_bytes: Option<f64>,
    /// Multiplied and added for every token of a prompt, attention left out.
    pub(crate) multiply_adds: Option<f64>,
    kv: Vec<KvGroup>,
}

/// Layers that keep the same tokens.
#[derive(Clone, Debug, PartialEq)]
struct KvGroup {
    /// Tokens that are kept; none means all.
    window: Option<f64>,
    bytes_per_token: f64,
}

impl Subject {
    /// The models of these names or files, by default all that `xtask` knows.
    ///
    /// # Errors
    /// When one cannot be had or read.
    pub(crate) fn all(workspace: &Workspace, named: &[String]) -> Result<Vec<Self>> {
        let known = models::MODELS.map(|(name, _)| name);
        let named: Vec<&str> = match named {
            [] => known.to_vec(),
            named => named.iter().map(String::as_str).collect(),
        };
        let subject = |name: &str| {
            let path = if known.contains(&name) {
                let found = models::provide_some(workspace, &[name])?;
                let (_, path) = found.first().context("a known model is provided")?;
                path.clone()
            } else if Path::new(name).is_file() {
                std::path::absolute(name)?
            } else {
                bail!("`{name}` is no file and none of {}", known.join(", "))
            };
            let name = if known.contains(&name) {
                name.to_owned()
            } else {
                let file = path.file_stem().unwrap_or(path.as_os_str());
                file.to_string_lossy().into_owned()
            };
            let facts = Facts::of(&workspace.tercel(), &path)?;
            Ok(Self { name, path, facts })
        };
        named.into_iter().map(subject).collect()
    }
}

impl Facts {
    fn of(tercel: &Path, model: &Path) -> Result<Self> {
        const LIMIT: Duration = Duration::from_secs(60);
        let ask = |args: &[&str]| {
            let mut command = Command::new(tercel);
            let text = process::output(command.args(args).arg(model), LIMIT)?;
            serde_json::from_str(&text).with_context(|| format!("`tercel {}`", args.join(" ")))
        };
        let inspected: Value = ask(&["inspect", "--tensors", "--json"])?;
        let kv_size: Value = ask(&["kv-size", "--json"])?;
        Self::read(&inspected, &kv_size).with_context(|| {
            format!(
                "`tercel inspect` leaves something out of {}",
                model.display()
            )
        })
    }

    fn read(inspected: &Value, kv_size: &Value) -> Option<Self> {
        let model = &inspected["model"];
        let tensors = inspected["tensor_list"].as_array()?;
        let is = |tensor: &Value, function: &str| tensor["function"] == function;
        let bytes = |tensor: &Value| tensor["bytes"].as_f64();
        // A head of its own leaves the embedding to be read a row at a time.
        let has_head = tensors.iter().any(|tensor| is(tensor, HEAD));
        let (mut weight_bytes, mut multiply_adds) = (0.0, 0.0);
        for tensor in tensors {
            let is_embedding = is(tensor, EMBEDDING);
            if !(has_head && is_embedding) {
                weight_bytes += bytes(tensor)?;
            }
            // The head is for the last token of a prompt alone.
            if let ([rows, cols], false) = (
                &tensor["shape"].as_array()?[..],
                is_embedding || is(tensor, HEAD),
            ) {
                multiply_adds += rows.as_f64()? * cols.as_f64()?;
            }
        }
        let is_dense = model["n_experts"].as_u64()? == 0;
        let types = inspected["tensor_types"].as_array()?.iter();
        let types = types.filter(|row| row["dtype"] != "F32");
        let main = types.max_by_key(|row| row["tensors"].as_u64());
        Some(Self {
            architecture: model["architecture"].as_str()?.to_owned(),
            parameters: model["parameters"].as_u64()?,
            dtype: main
                .map_or("F32", |row| row["dtype"].as_str().unwrap_or_default())
                .to_owned(),
            trained_context: model["trained_context"].as_u64()?,
            weight_bytes: is_dense.then_some(weight_bytes),
            multiply_adds: is_dense.then_some(multiply_adds),
            kv: kv_groups(inspected, kv_size)?,
        })
    }

    /// A model that is known by its kind alone.
    #[cfg(test)]
    pub(crate) fn of_kind(architecture: &str, parameters: u64, dtype: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            parameters,
            dtype: dtype.to_owned(),
            trained_context: 8192,
            weight_bytes: Some(1e8),
            multiply_adds: Some(1e8),
            kv: vec![KvGroup {
                window: None,
                bytes_per_token: 1e4,
            }],
        }
    }

    /// Bytes read from memory for a token behind `depth` others.
    pub(crate) fn bytes_read(&self, depth: f64) -> Option<f64> {
        let kept = |group: &KvGroup| group.window.map_or(depth, |window| window.min(depth));
        let kv = self
            .kv
            .iter()
            .map(|group| kept(group) * group.bytes_per_token);
        Some(self.weight_bytes? + kv.sum::<f64>())
    }
}

/// What `tercel inspect` calls the tensors that are not read for every token of a prompt.
const EMBEDDING: &str = "embedding";
const HEAD: &str = "head";

fn kv_groups(inspected: &Value, kv_size: &Value) -> Option<Vec<KvGroup>> {
    let groups = inspected["memory"]["kv"].as_array()?;
    let layers = |group: &Value| group["layers"].as_f64();
    let all: f64 = groups.iter().map(layers).sum::<Option<f64>>()?;
    let bytes_per_token = kv_size["bytes_per_token"].as_f64()?;
    let group = |group: &Value| {
        Some(KvGroup {
            window: group["window"].as_f64(),
            bytes_per_token: bytes_per_token * layers(group)? / all,
        })
    };
    groups.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inspected(head: bool) -> Value {
        let tensor = |function: &str, shape: Value, bytes: u32| json!({"name": "n", "function": function, "shape": shape, "bytes": bytes});
        let mut tensors = vec![
            tensor("embedding", json!([100, 10]), 1000),
            tensor("norm", json!([10]), 40),
            tensor("query", json!([20, 10]), 125),
            tensor("feed_forward", json!([10, 30]), 150),
        ];
        if head {
            tensors.push(tensor("head", json!([100, 10]), 500));
        }
        json!({
            "model": {"architecture": "llama", "parameters": 1510, "trained_context": 64,
                      "n_experts": 0},
            "tensor_types": [{"dtype": "F32", "tensors": 9}, {"dtype": "Q8_0", "tensors": 1},
                             {"dtype": "Q4_1", "tensors": 2}],
            "tensor_list": tensors,
            "memory": {"kv": [{"window": null, "layers": 1}, {"window": 8, "layers": 3}]},
        })
    }

    #[test]
    fn what_a_token_reads_and_multiplies_comes_from_the_shapes() {
        let kv_size = json!({"bytes_per_token": 40});
        let facts = Facts::read(&inspected(false), &kv_size).unwrap();
        assert_eq!(
            (facts.architecture.as_str(), facts.parameters),
            ("llama", 1510)
        );
        assert_eq!(facts.dtype, "Q4_1");
        // 20 x 10 and 10 x 30; neither the embedding nor the norm.
        assert_eq!(facts.multiply_adds, Some(500.0));
        assert_eq!(facts.bytes_read(0.0), Some(1315.0));
        // A layer of 10 bytes a token sees all, three see eight at most.
        assert_eq!(facts.bytes_read(4.0), Some(1315.0 + 4.0 * 40.0));
        assert_eq!(
            facts.bytes_read(20.0),
            Some(1315.0 + 20.0 * 10.0 + 8.0 * 30.0)
        );

        let facts = Facts::read(&inspected(true), &kv_size).unwrap();
        assert_eq!(facts.multiply_adds, Some(500.0));
        assert_eq!(facts.bytes_read(0.0), Some(40.0 + 125.0 + 150.0 + 500.0));
    }

    #[test]
    fn a_mixture_of_experts_reads_what_its_tokens_choose() {
        let mut inspected = inspected(false);
        inspected["model"]["n_experts"] = json!(4);
        let facts = Facts::read(&inspected, &json!({"bytes_per_token": 40})).unwrap();
        assert_eq!((facts.multiply_adds, facts.bytes_read(3.0)), (None, None));
        assert_eq!(Facts::read(&inspected, &json!({})), None);
    }
}
