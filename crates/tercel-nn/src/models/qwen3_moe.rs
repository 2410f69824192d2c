//! Qwen 3 with a mixture of experts (Qwen Team, 2025): each token is sent through the few experts
//! that a router likes best.

use tercel_formats::checkpoint::{Field, Packaging};
use tercel_kernels::ops::rope::Pairing;

use super::decoder::{Decoder, Design, Mlp, dense};
use super::{Family, rotary, windows};
use crate::NnError;
use crate::backend::Matrix;
use crate::loader::{Loader, Mixture};
use crate::runner::ModelInfo;

pub(super) const FAMILY: Family = Family {
    name: "qwen3moe",
    model_types: &["qwen3_moe"],
    tensors: &[
        ("ffn_gate_exps", "mlp.switch_mlp.gate_proj"),
        ("ffn_up_exps", "mlp.switch_mlp.up_proj"),
        ("ffn_down_exps", "mlp.switch_mlp.down_proj"),
        ("ffn_gate_up_exps.weight", "mlp.experts.gate_up_proj"),
        (FUSED_DOWN, "mlp.experts.down_proj"),
    ],
    defaults: &[],
    construct: |w| Ok(Box::new(new(w)?)),
};

/// What goes with fused gates in safetensors.
const FUSED_DOWN: &str = "ffn_down_exps.fused";

fn new(w: &mut Loader<'_, '_>) -> Result<Decoder, NnError> {
    let info = ModelInfo::read_with_experts(w)?;
    w.only("hidden_act", "silu")?;
    let rope = rotary::read(w, &info, 10_000.0, Pairing::Halves)?;
    let every_layer = w.flag("use_sliding_window")?.unwrap_or(false);
    let design = Design {
        eps: w.positive_or("attention.layer_norm_rms_epsilon", 1e-6)? as f32,
        rope: w.rope(rope),
        windows: windows::read(w, &info, |_| every_layer)?,
        head_norms: true,
        mlp: |w, info, i| {
            if has_experts(w, i)? {
                experts(w, info, i)
            } else {
                dense(w, info, i)
            }
        },
    };
    Decoder::new(w, info, &design)
}

/// Whether layer `i` has experts; all have, unless the configuration says otherwise.
fn has_experts(w: &Loader<'_, '_>, i: usize) -> Result<bool, NnError> {
    const DENSE: &str = "mlp_only_layers";
    let step = w.count_or("decoder_sparse_step", 1..=1024, 1)?;
    let dense = match w.field(DENSE) {
        Some(Field::List(layers)) => layers.contains(&Field::Whole(i as i128)),
        Some(other) => return Err(w.refuse(DENSE, format!("{} is no list", other.describe()))),
        None => false,
    };
    Ok(!dense && (i + 1).is_multiple_of(step))
}

fn experts(w: &mut Loader<'_, '_>, info: &ModelInfo, i: usize) -> Result<Mlp, NnError> {
    let hidden = info.hidden_size;
    let n = w.count("expert_count", 1..=4096)?;
    let used = w.count("expert_used_count", 1..=n)?;
    let width = w.count("expert_feed_forward_length", 1..=1 << 20)?;
    let [gate, up, down] = expert_matrices(w, i, n, width, hidden)?;
    let mixture = Mixture {
        gate,
        up,
        down,
        used,
        renormalize: match w.packaging() {
            // The format has no way to say it: converters only write models that do.
            Packaging::Gguf => true,
            _ => w.flag("norm_topk_prob")?.unwrap_or(false),
        },
    };
    Ok(Mlp::Experts {
        router: w.delicate(&format!("blk.{i}.ffn_gate_inp.weight"), n, hidden)?,
        experts: w.mixture(mixture),
    })
}

/// Gates, ups and downs of all experts of a layer: in stacks, in stacks with gate and up in one,
/// or each in a tensor of its own.
fn expert_matrices(
    w: &mut Loader<'_, '_>,
    i: usize,
    n: usize,
    width: usize,
    hidden: usize,
) -> Result<[Vec<Matrix>; 3], NnError> {
    let name = |part: &str| format!("blk.{i}.{part}");
    let fused = name("ffn_gate_up_exps.weight");
    let stacked = name("ffn_gate_exps.weight");
    let mut down = name("ffn_down_exps.weight");
    if w.has_tensor(&fused) {
        if !w.has_tensor(&down) {
            down = name(FUSED_DOWN);
        }
        let shape = (n, 2 * width, hidden);
        return Ok([
            w.stack(&fused, shape, 0..width)?,
            w.stack(&fused, shape, width..2 * width)?,
            w.stack(&down, (n, hidden, width), 0..hidden)?,
        ]);
    }
    if w.packaging() == Packaging::Gguf || w.has_tensor(&stacked) {
        let shape = (n, width, hidden);
        return Ok([
            w.stack(&stacked, shape, 0..width)?,
            w.stack(&name("ffn_up_exps.weight"), shape, 0..width)?,
            w.stack(&down, (n, hidden, width), 0..hidden)?,
        ]);
    }
    let mut each = |part: &str, rows, cols| -> Result<Vec<Matrix>, NnError> {
        let name = |e: usize| format!("blk.{i}.mlp.experts.{e}.{part}.weight");
        (0..n).map(|e| w.matrix(&name(e), rows, cols)).collect()
    };
    Ok([
        each("gate_proj", width, hidden)?,
        each("up_proj", width, hidden)?,
        each("down_proj", hidden, width)?,
    ])
}
