#!/usr/bin/env python3
"""Makes the tokenizer goldens beside this file: one small vocabulary in two formats, and what it does to odd strings.

    pip install tokenizers==0.23.3 gguf==0.19.0
    python make_tokenizer.py

tokenizer.json   byte-fallback BPE laid out as in Mistral-7B v0.1 (prepended "▁", no pre-tokenizer, `<s>` by template)
tokenizer.gguf   the same vocabulary as SentencePiece pieces, scores and types, without tensors
cases.json       text, ids without and with special tokens, and the text decoded from the ids

SentencePiece merges whichever adjacent pair makes the piece with the best score; BPE merges the pair of lowest rank. Both
agree when score = -rank and every split of a piece is a merge, so merges here are derived from the scores as converters
do it. A plain SentencePiece encoder below, reading the GGUF, must give the ids of tokenizer.json on every case
and on random text.
"""

import heapq
import json
import random
from pathlib import Path

import gguf
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

HERE = Path(__file__).parent
SPACE = "\u2581"
SPECIALS = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
VOCAB_SIZE = 600

CASES = [
    "", " ", "  ", "a", "Hello", "Hello world", "hello  world", " leading", "trailing ", "   three   each   ",
    "What is TTFT?", "The server answers; the queue is empty.", "tokens per second: 12,345.678",
    "line one\nline two\n\nline four", "\n", "\t\tindented\r\n", "caf\u00e9", "cafe\u0301", "\u00e4\u00f6\u00fc\u00df \u00c5ngstr\u00f6m",
    "\u6771\u4eac\u306f\u3044\u3044\u5929\u6c17", "\uc548\ub155\ud558\uc138\uc694", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "\u0645\u0631\u062d\u0628\u0627",
    "\U0001f600", "mixed \U0001f469\u200d\U0001f680 and \U0001f1e9\U0001f1ea text", "NUL\x00inside", "\x00", "bell\x07 del\x7f",
    "a\u0308\u0323 zalgo\u0334", "\ufeffbom", SPACE, "x" + SPACE + "y", "fn main() { println!(\"{}\", 1 << 2); }",
    "https://localhost:8000/generate?x=1&y=%20", "aaaaaaaaaaaaaaaaa", "\U0010ffff\ufffd", "1 2  3   4    5",
]

TEXT = """
The gateway takes a prompt, turns it into tokens and waits in the queue until the engine has a place for it.
The first token comes after prefill, every later token comes from one decode step, and the last byte is delivered.
Time to first token is what a reader notices first. Time per output token is how fast the text then flows.
A server that is busy makes new requests wait, and the waiting shows in the tail of the latency distribution.
Rain fell on the roof of the data centre while the fans hummed. Nobody was there to hear them, only the lamps blinked.
Hello world, hello there. Caches keep what was computed before, so that the same work is not done again.
Numbers such as 10, 25, 50 and 128 appear often: users, requests, tokens, blocks and milliseconds.
"""


def learn_pieces():
    """Merged pieces in the order they were learned, then single characters, as SentencePiece lays out its vocabulary."""
    learner = Tokenizer(BPE())
    learner.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    learner.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE - len(SPECIALS) - len(BYTES) - 2, show_progress=False,
                                  initial_alphabet=[chr(c) for c in range(33, 127)] + list("\u00e9\u00e4\u00f6\u00fc"))
    learner.train_from_iterator(TEXT.strip().split("\n"), trainer)
    by_id = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    merged = [piece for piece, _ in by_id if len(piece) > 1]
    return [SPACE * 2, SPACE * 4] + merged, sorted(piece for piece, _ in by_id if len(piece) == 1)


def merges_from(scores, vocab):
    """Every split of every piece into two known pieces, best score first."""
    merges = []
    for piece in sorted(scores, key=lambda p: -scores[p]):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [s for s in splits if s[0] in vocab and s[1] in vocab]
        merges += sorted(known, key=lambda s: (vocab[s[0]], vocab[s[1]]))
    return merges


def build_tokenizer(vocab, merges):
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def write_gguf(path, pieces, scores):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tokenizer golden")
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([float(scores.get(piece, 0.0)) for piece in pieces])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class SentencePiece:
    """The textbook encoder over a GGUF's pieces: merge the best-scored adjacent pair, leftmost first, then spell what is
    left in bytes."""

    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields
        pieces = fields["tokenizer.ggml.tokens"].contents()
        self.ids = {piece: i for i, piece in enumerate(pieces)}
        self.scores = fields["tokenizer.ggml.scores"].contents()
        self.types = fields["tokenizer.ggml.token_type"].contents()

    def encode(self, text):
        if not text:
            return []
        symbols = list((" " + text).replace(" ", SPACE))
        after = list(range(1, len(symbols))) + [-1]
        before = list(range(-1, len(symbols) - 1))
        queue = []

        def offer(left):
            right = after[left] if left >= 0 else -1
            if right < 0:
                return
            piece = symbols[left] + symbols[right]
            found = self.ids.get(piece)
            if found is not None and self.types[found] == 1:
                heapq.heappush(queue, (-self.scores[found], left, right, piece))

        for place in range(len(symbols)):
            offer(place)
        while queue:
            _, left, right, piece = heapq.heappop(queue)
            if symbols[left] is None or symbols[right] is None or symbols[left] + symbols[right] != piece:
                continue
            symbols[left], symbols[right] = piece, None
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            offer(before[left])
            offer(left)
        ids = []
        for symbol in filter(None, symbols):
            found = self.ids.get(symbol)
            ids += [found] if found is not None else [3 + b for b in symbol.encode()]
        return ids


def check(tokenizer, sentencepiece):
    rng = random.Random(7)
    alphabet = " eatrsonih.,\n" + "\u00e9\u6771\U0001f600T" + "  the"
    texts = CASES + TEXT.split("\n") + ["".join(rng.choices(alphabet, k=rng.randint(1, 60))) for _ in range(3000)]
    for text in texts:
        ours = tokenizer.encode(text, add_special_tokens=False).ids
        theirs = sentencepiece.encode(text)
        assert ours == theirs, (text, ours, theirs)
        assert tokenizer.decode(ours, skip_special_tokens=True) == text.replace(SPACE, " "), text


def main():
    merged, characters = learn_pieces()
    pieces = SPECIALS + BYTES + merged + characters
    vocab = {piece: i for i, piece in enumerate(pieces)}
    scores = {piece: -float(rank) for rank, piece in enumerate(merged + characters)}
    tokenizer = build_tokenizer(vocab, merges_from({p: scores[p] for p in merged}, vocab))
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    write_gguf(HERE / "tokenizer.gguf", pieces, scores)
    check(tokenizer, SentencePiece(HERE / "tokenizer.gguf"))
    rows = []
    for text in CASES:
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text).ids
        rows.append({"text": text, "ids": plain, "ids_with_special": special, "decoded": tokenizer.decode(special)})
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(pieces)} pieces, {len(rows)} cases")


if __name__ == "__main__":
    main()
