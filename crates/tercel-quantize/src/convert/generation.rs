//! `generation_config.json` of a GGUF file.

use serde_json::{Map, Value as Json};
use tercel_formats::checkpoint::Field;

use super::gguf::Model;

/// Where a reply ends, and how tokens are drawn where the file says.
pub(super) fn of(model: &Model<'_, '_>) -> Json {
    let mut config = Map::new();
    let tokenizer = &model.tokenizer;
    for (name, id) in [
        ("bos_token_id", tokenizer.bos()),
        ("pad_token_id", tokenizer.pad()),
    ] {
        if let Some(id) = id {
            config.insert(name.to_owned(), id.into());
        }
    }
    config.insert("eos_token_id".to_owned(), tokenizer.end_ids().into());
    let metadata = model.metadata;
    let number = |name: &str| {
        let field = metadata.f32(&format!("general.sampling.{name}")).ok()??;
        field.to_string().parse::<f64>().ok()
    };
    let sampling = [
        ("temperature", number("temp").map(Json::from)),
        ("top_p", number("top_p").map(Json::from)),
        ("min_p", number("min_p").map(Json::from)),
        (
            "repetition_penalty",
            number("penalty_repeat").map(Json::from),
        ),
        ("top_k", top_k(model).map(Json::from)),
    ];
    for (name, value) in sampling {
        if let Some(value) = value {
            config.insert(name.to_owned(), value);
            config.insert("do_sample".to_owned(), true.into());
        }
    }
    Json::Object(config)
}

/// At most 0 keeps all tokens.
fn top_k(model: &Model<'_, '_>) -> Option<u32> {
    match model.checkpoint.field("general.sampling.top_k")? {
        Field::Whole(k) => u32::try_from(k.max(0)).ok(),
        _ => None,
    }
}
