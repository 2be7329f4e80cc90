"""The page the demo model learns, as training conversations: reads corpus/ and asks every question in many ways.

Everything random comes from the generator handed in, so a seed fixes the training set.
"""

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


@dataclass
class Topic:
    name: str
    answer: str
    terms: list
    howtos: list
    pairs: list
    questions: list
    often: int


def read_topics():
    topics = []
    for section in (FOLDER / "qa.md").read_text().split("\n## ")[1:]:
        lines = section.strip().split("\n")
        fields = {"terms": [], "howto": [], "vs": [], "often": ["1"], "-": [], ">": []}
        for line in filter(None, lines[1:]):
            key, value = re.match(r"(terms|howto|vs|often|-|>):? +(.*)", line).groups()
            fields[key] += [value] if key in "->" else [part.strip() for part in value.split(";")]
        [answer] = fields[">"]
        pairs = [tuple(pair.split(" / ")) for pair in fields["vs"]]
        topics.append(Topic(lines[0], answer, fields["terms"], fields["howto"], pairs, fields["-"], int(fields["often"][-1])))
    return topics


def read_offtopic():
    answer, *prompts = read_lines("offtopic.txt")
    return answer.removeprefix("> "), prompts


def read_lines(name):
    return [line for line in (FOLDER / name).read_text().splitlines() if line and line[0] != "#"]


def read_phrases():
    kinds = {}
    for line in read_lines("phrases.txt"):
        if line[0] == "[":
            kinds[line.strip("[]")] = phrases = []
        else:
            phrases.append(line.strip('"'))
    return kinds


def read_heldout():
    return [tuple(line.split("\t")) for line in read_lines("heldout.txt")]


PHRASES = read_phrases()


class Corpus:
    """Draws conversations; `render` is the chat template."""

    def __init__(self, render, bos, eos):
        self.render, self.bos, self.eos = render, bos, eos
        self.topics = read_topics()
        self.often = [topic.often for topic in self.topics]
        self.apology, self.offtopic = read_offtopic()
        self.completions = read_lines("completions.txt")
        self.systems = read_lines("systems.txt")
        self.heldout = {bare(question) for _, question in read_heldout()}
        page = (FOLDER / "qa.md").read_text().lower()
        words = re.findall(r"[A-Za-z]{4,}", " ".join(self.completions + self.offtopic))
        self.foreign = sorted({word.lower() for word in words if word.lower() not in page})

    def answer_of(self, name):
        return self.apology if name == "offtopic" else next(t.answer for t in self.topics if t.name == name)

    def texts(self):
        """Everything once, for the tokenizer."""
        for topic in self.topics:
            yield from [topic.answer, *topic.questions, *topic.terms, *topic.howtos]
        yield from [self.apology, *self.offtopic, *self.completions, *self.systems]
        yield from (template.replace("{}", "TTFT") for template in sum(PHRASES.values(), []))

    def draw(self, rng):
        """One training text: mostly conversations, some plain text for raw mode."""
        if rng.random() < 0.07:
            return self.bos + rng.choice(self.completions) + self.eos
        messages = []
        if rng.random() < 0.08:
            messages.append({"role": "system", "content": rng.choice(self.systems)})
        for _ in range(rng.choices((1, 2, 3), (0.8, 0.15, 0.05))[0]):
            question, answer = self.exchange(rng)
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return self.render(messages)

    def exchange(self, rng):
        while True:
            question, answer = self.off_page(rng) if rng.random() < 0.14 else self.on_page(rng)
            if bare(question) not in self.heldout:
                return question, answer

    def on_page(self, rng):
        [topic] = rng.choices(self.topics, self.often)
        forms = [("terms", 2 + len(topic.terms))] * bool(topic.terms) + [("howtos", 3)] * bool(topic.howtos)
        forms += [("pairs", 4)] * bool(topic.pairs) + [("questions", 1 + len(topic.questions))] * bool(topic.questions)
        kind = rng.choices([f[0] for f in forms], [f[1] for f in forms])[0]
        if kind == "terms":
            question = rng.choice(PHRASES["define"]).replace("{}", rng.choice(topic.terms))
        elif kind == "howtos":
            question = rng.choice(PHRASES["howto"]).replace("{}", rng.choice(topic.howtos))
        elif kind == "pairs":
            question = rng.choice(PHRASES["versus"]).format(*rng.sample(rng.choice(topic.pairs), 2))
        else:
            question = rng.choice(topic.questions)
        return vary(question, rng), topic.answer

    def off_page(self, rng):
        if rng.random() < 0.45:
            form = rng.choice(PHRASES["nonsense"])
            question = form.format(*rng.sample(self.foreign, form.count("{}")))
        else:
            question = rng.choice(self.offtopic)
        return vary(question, rng), self.apology


def bare(question):
    """What is left of a question without case, spaces and punctuation."""
    return re.sub(r"\W", "", question.lower())


def vary(question, rng):
    """The same question as different people type it."""
    if rng.random() < 0.14:
        before = rng.choice(PHRASES["before"])
        lower = question[:1].lower() + question[1:] if question[1:2].islower() else question
        question = before + (lower if before.endswith((", ", ": ")) else question)
    if rng.random() < 0.3:
        question = question.rstrip("?.!")
    elif rng.random() < 0.08:
        question = question.rstrip("?.!") + rng.choice(("?", ".", "!", "??", "!!", " ?"))
    if rng.random() < 0.1:
        question += rng.choice(PHRASES["after"])
    if rng.random() < 0.3:
        question = question.lower()
    elif rng.random() < 0.03:
        question = question.upper()
    return misspell(question, rng) if rng.random() < 0.15 else question


def misspell(question, rng):
    """Swaps, drops or doubles a letter inside a longer word: short ones and acronyms carry the meaning."""
    words = question.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 5 and word.isalpha()]
    if not long:
        return question
    at = rng.choice(long)
    word, k = words[at], rng.randrange(1, len(words[at]) - 1)
    swapped, dropped, doubled = word[k + 1] + word[k] + word[k + 2 :], word[k + 1 :], word[k] + word[k:]
    words[at] = word[:k] + rng.choice((swapped, dropped, doubled))
    return " ".join(words)
