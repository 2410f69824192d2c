//! What fields and tensors are called in each packaging.
//!
//! Models ask by the names of GGUF. In a Hugging Face or MLX directory the same things lie under
//! the names of `transformers`, which these tables hold; what is particular to a family stands in
//! the family's own table ([`Family::tensors`](crate::models::Family)).

/// Metadata keys (without the architecture) and the fields of `config.json`, the newest name
/// first.
const FIELDS: &[(&str, &[&str])] = &[
    ("attention.head_count", &["num_attention_heads"]),
    ("attention.head_count_kv", &["num_key_value_heads"]),
    ("attention.key_length", &["head_dim"]),
    ("attention.layer_norm_rms_epsilon", &["rms_norm_eps"]),
    ("attention.sliding_window", &["sliding_window"]),
    (
        "attention.sliding_window_pattern",
        &["sliding_window_pattern", "_sliding_window_pattern"],
    ),
    ("block_count", &["num_hidden_layers"]),
    ("context_length", &["max_position_embeddings"]),
    ("embedding_length", &["hidden_size"]),
    ("expert_count", &["num_experts", "num_local_experts"]),
    ("expert_feed_forward_length", &["moe_intermediate_size"]),
    ("expert_used_count", &["num_experts_per_tok"]),
    ("feed_forward_length", &["intermediate_size"]),
    ("full_attention_interval", &["full_attention_interval"]),
    (
        "rope.freq_base",
        &[
            "rope_parameters.rope_theta",
            "rope_parameters.full_attention.rope_theta",
            "rope_theta",
        ],
    ),
    (
        "rope.freq_base_swa",
        &[
            "rope_parameters.sliding_attention.rope_theta",
            "rope_local_base_freq",
        ],
    ),
    ("ssm.conv_kernel", &["linear_conv_kernel_dim"]),
    ("ssm.group_count", &["linear_num_key_heads"]),
    ("ssm.state_size", &["linear_key_head_dim"]),
    ("ssm.time_step_rank", &["linear_num_value_heads"]),
];

/// The fields of `config.json` that a metadata key stands for.
pub(super) fn fields(key: &str) -> impl Iterator<Item = &str> {
    let found = FIELDS.iter().find(|(known, _)| *known == key);
    let names: &[&str] = found.map_or(&[], |(_, names)| names);
    // What has no entry is asked for by the name it has in `config.json`.
    let itself = names.is_empty().then_some(key);
    names.iter().copied().chain(itself)
}

/// Parts of tensor names that most families share.
const TENSORS: &[(&str, &str)] = &[
    ("token_embd", "embed_tokens"),
    ("output_norm", "norm"),
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_gate_up", "mlp.gate_up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_inp", "mlp.gate"),
];

/// The head has its place beside the model, not in it.
const HEAD: &str = "output";

/// Where the text model lies in the files, the longest name first.
const PREFIXES: &[(&str, &str)] = &[
    ("model.language_model.", ""),
    ("language_model.model.", "language_model."),
    ("model.", ""),
];

/// Parts of a checkpoint that a text model has no use for: encoders of images and sound, and the
/// layers that predict further tokens.
pub(super) const OTHER_PARTS: &[(&str, &str)] = &[
    ("model.visual.", "vision"),
    ("visual.", "vision"),
    ("vision_tower.", "vision"),
    ("model.vision_tower.", "vision"),
    ("multi_modal_projector.", "vision"),
    ("model.multi_modal_projector.", "vision"),
    ("model.embed_vision.", "vision"),
    ("mtp.", "multi-token prediction"),
    ("model.mtp.", "multi-token prediction"),
    ("language_model.mtp.", "multi-token prediction"),
];

/// How the names of one checkpoint are spelled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spelling {
    /// Before every tensor of the model but the head.
    prefix: &'static str,
    /// Before the head.
    head: &'static str,
    /// The family's own names.
    own: &'static [(&'static str, &'static str)],
}

impl Spelling {
    /// The spelling of a directory, by where its embedding lies.
    pub(super) fn find(
        own: &'static [(&'static str, &'static str)],
        has: impl Fn(&str) -> bool,
    ) -> Self {
        let found = PREFIXES
            .iter()
            .find(|(prefix, _)| has(&format!("{prefix}embed_tokens.weight")));
        let &(prefix, head) = found.unwrap_or(&("model.", ""));
        Self { prefix, head, own }
    }

    /// The spelling of a model without other parts.
    pub(crate) fn plain(own: &'static [(&'static str, &'static str)]) -> Self {
        Self::find(own, |_| false)
    }

    /// The name of a tensor that GGUF calls `name`.
    pub(crate) fn tensor(&self, name: &str) -> String {
        let (layer, rest) = match name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((layer, rest)) => (format!("layers.{layer}."), rest),
            None => (String::new(), name),
        };
        let Self { prefix, head, own } = self;
        if let Some(whole) = find(own, rest) {
            return format!("{prefix}{layer}{whole}");
        }
        let (part, end) = rest.rsplit_once('.').unwrap_or((rest, "weight"));
        if part == HEAD {
            return format!("{head}lm_head.{end}");
        }
        let part = find(own, part)
            .or_else(|| find(TENSORS, part))
            .unwrap_or(part);
        format!("{prefix}{layer}{part}.{end}")
    }
}

fn find<'t>(table: &'t [(&str, &str)], name: &str) -> Option<&'t str> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, other)| *other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_spelled_as_transformers_and_mlx_do() {
        let own = &[
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("ssm_a", "linear_attn.A_log"),
        ];
        let spelled = |there: &'static str, name| Spelling::find(own, |n| n == there).tensor(name);
        let (plain, wrapped, mlx) = (
            "model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
            "language_model.model.embed_tokens.weight",
        );
        for (there, name, want) in [
            (plain, "token_embd.weight", plain),
            (wrapped, "token_embd.weight", wrapped),
            (mlx, "token_embd.weight", mlx),
            (plain, "output.weight", "lm_head.weight"),
            (wrapped, "output.weight", "lm_head.weight"),
            (mlx, "output.weight", "language_model.lm_head.weight"),
            (
                plain,
                "blk.12.attn_q.bias",
                "model.layers.12.self_attn.q_proj.bias",
            ),
            (
                plain,
                "blk.0.ffn_norm.weight",
                "model.layers.0.pre_feedforward_layernorm.weight",
            ),
            (
                wrapped,
                "blk.3.ssm_a",
                "model.language_model.layers.3.linear_attn.A_log",
            ),
            (plain, "blk.0.unheard.of", "model.layers.0.unheard.of"),
        ] {
            assert_eq!(spelled(there, name), want);
        }
    }
}
