"""Documents as many and as large as asked for, always the same: made-up words, as often as words of a language are
(Zipf's law), in Markdown with headings, lists, tables and code."""

import itertools
import random

WORDS = 60_000
SEED = 20_261_129
FILE = 20_000
SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "en", "ar", "is")]


def vocabulary(rng):
    words = set()
    while len(words) < WORDS:
        words.add("".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2, 3, 3, 4)))))
    ordered = sorted(words, key=lambda word: (len(word), word))
    # Frequent words are short, as in any language.
    head, tail = ordered[:500], ordered[500:]
    rng.shuffle(head)
    rng.shuffle(tail)
    return head + tail


class Corpus:
    """Makes documents, and questions with words of what it has made."""

    def __init__(self):
        self.rng = random.Random(SEED)
        self.words = vocabulary(self.rng)
        self.weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(WORDS)))
        self.questions = []

    def text(self, words):
        return self.rng.choices(self.words, cum_weights=self.weights, k=words)

    def sentence(self):
        words = self.text(self.rng.randint(6, 22))
        return " ".join(words).capitalize() + "."

    def section(self):
        rng = self.rng
        lines = [f"{'#' * rng.choice((2, 2, 3))} {' '.join(self.text(4)).capitalize()}", ""]
        for _ in range(rng.randint(1, 4)):
            sentences = [self.sentence() for _ in range(rng.randint(2, 6))]
            lines += [" ".join(sentences), ""]
        kind = rng.random()
        if kind < 0.2:
            lines += [f"- {self.sentence()}" for _ in range(rng.randint(3, 8))] + [""]
        elif kind < 0.3:
            rows = [" | ".join(self.text(3)) for _ in range(rng.randint(3, 10))]
            lines += [f"| {rows[0]} |", "| --- | --- | --- |"] + [f"| {row} |" for row in rows[1:]] + [""]
        elif kind < 0.4:
            lines += ["```sh"] + [" ".join(self.text(6)) for _ in range(5)] + ["```", ""]
        if rng.random() < 0.05:
            self.questions.append("What is " + " ".join(lines[2].split()[3:9]).rstrip(".") + "?")
        return "\n".join(lines)

    def document(self):
        parts = [f"# {' '.join(self.text(3)).capitalize()}\n"]
        size = len(parts[0])
        while size < FILE:
            parts.append(self.section())
            size += len(parts[-1]) + 1
        return "\n".join(parts)

    def write(self, folder, total):
        """Writes about `total` bytes; the files and their size together."""
        files, size = 0, 0
        while size < total:
            text = self.document()
            inner = folder / f"part{files % 40:02}"
            inner.mkdir(parents=True, exist_ok=True)
            (inner / f"{files:05}.md").write_text(text)
            files, size = files + 1, size + len(text)
        return files, size
