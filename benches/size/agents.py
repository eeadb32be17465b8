"""Sizes `qa` and `coding` by `switchyard size`, with the work that benches/size/agents tells of."""

import datetime
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "qa"))
import corpus
import servers

DOCUMENTS = 50_000_000
TYPES = ("qa", "coding")
TIME = "12m"


def programs(folder):
    """`switchyard` starts the `agent` that lies beside it."""
    for name, variable in (("switchyard", "SWITCHYARD_BIN"), ("agent", "AGENT_BIN")):
        source = os.environ[variable]
        try:
            os.link(source, folder / name)
        except OSError:
            shutil.copy2(source, folder / name)
    return folder / "switchyard"


def qa(folder):
    """50 MB of documents, questions with their words, of which one in eight brings a text of 2 to 48 KiB along, and a
    model that answers with a citation."""
    docs, questions = folder / "docs", folder / "questions.txt"
    making = corpus.Corpus()
    files, size = making.write(docs, DOCUMENTS)
    print(f"qa: {size / 1e6:.1f} MB in {files} files", flush=True)
    questions.write_text("\n".join(making.questions) + "\n")
    long = folder / "long.txt"
    long.write_text("".join(long_question(making) + "\n" for _ in range(200)))
    mix = folder / "qa.toml"
    body = '{"input": {{input}}, "stream": true}'
    kind = lambda weight, inputs: f"[[request]]\nweight = {weight}\ninputs = \"{inputs}\"\nbody = '{body}'\n"
    mix.write_text(kind(7, questions) + kind(1, long))
    return mix, {"AGENT_DOCS": str(docs), "OPENAI_BASE_URL": servers.start(), "AGENT_MODEL": "bench"}


def long_question(making):
    rng = making.rng
    size = int(2048 * 24 ** rng.random())
    return (rng.choice(making.questions) + " " + " ".join(making.text(size // 5)))[:size]


def coding(_):
    return HERE / "coding.toml", {}


def main():
    given = sys.argv[1:]
    write = "--write" in given
    types = [name for name in TYPES if name in given] or TYPES
    time = next((word for word in given if word[0].isdigit()), TIME)
    held = True
    for name in types:
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            # Commands of the coding agent run as users of their own, who have to get there.
            folder.chmod(0o755)
            mix, env = (qa if name == "qa" else coding)(folder)
            command = [programs(folder), "size", name, "--mix", mix, "--time", time]
            if "--limited" in given:
                command.append("--limited")
            if write:
                kept = HERE.parent / "runs" / datetime.date.today().isoformat() / f"size-{name}"
                command += ["--write", "--out", kept]
            held &= subprocess.run(command, env=os.environ | env).returncode == 0
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
