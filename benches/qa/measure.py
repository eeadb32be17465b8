"""Runs the agent in a memory limit and asks it; benches/qa/run says how it is called.

Ends with 1 when the agent was killed, took more than the limit, or left a question unanswered."""

import argparse
import http.client
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import cgroup
import corpus
import servers

MIB = 1 << 20
LIMIT = 512 * MIB
BYTES = 50_000_000
AT_ONCE = 32
SECONDS = 60
# Documents are edited while questions are asked, one in so many seconds.
EDIT = 2


class Agent:
    """The agent as a process, in its limit."""

    def __init__(self, group, docs, url, hybrid):
        binary = os.environ["AGENT_BIN"]
        command = [binary, "--type", "qa", "--port", "0", "--docs", str(docs)]
        env = {"PATH": os.environ["PATH"], "OPENAI_BASE_URL": url, "AGENT_MODEL": "bench", "SWITCHYARD_LOG": "warn"}
        env["TMPDIR"] = str(docs.parent)
        if hybrid:
            env["AGENT_EMBEDDING_MODEL"] = "bench"
        self.process = subprocess.Popen(group.command(command), env=env, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1])

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def gauge(self, name):
        lines = (line.split() for line in self.get("/metrics")[1].splitlines())
        return next(int(float(words[1])) for words in lines if words and words[0] == name)

    def wait(self, holds):
        """Waits until it holds; the seconds."""
        begun = time.monotonic()
        while not holds():
            if self.process.poll() is not None:
                sys.exit(f"the agent ended with {self.process.returncode}")
            time.sleep(0.1)
        return time.monotonic() - begun

    def status(self, name):
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024

    def end(self):
        self.process.terminate()
        self.process.wait(60)


def forget(docs):
    """Has the kernel forget the documents' pages: who reads them first is whom they are counted for."""
    for path in docs.rglob("*.md"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Load:
    """So many questions at once, each when the one before it is answered."""

    def __init__(self, agent, questions):
        self.agent, self.questions = agent, questions
        self.took, self.wrong, self.refused = [], [], 0
        self.until = 0

    def run(self, seconds):
        self.until = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client, args=(number,)) for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def client(self, number):
        rng = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self.agent.port, timeout=120)
        while time.monotonic() < self.until:
            begun = time.monotonic()
            try:
                self.ask(connection, rng.choice(self.questions))
                self.took.append(time.monotonic() - begun)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.wrong.append(repr(error))
                connection.close()
                if len(self.wrong) > 100:
                    return

    def ask(self, connection, question):
        body = json.dumps({"input": question, "stream": True})
        connection.request("POST", "/invoke", body)
        response = connection.getresponse()
        text = response.read().decode()
        name, data = text.strip().split("\n\n")[-1].split("\n", 1)
        if response.status != 200 or name != "event: final":
            raise ValueError(f"{response.status}: {text[-200:]}")
        reason = json.loads(data.removeprefix("data: "))["metadata"]["finish_reason"]
        self.refused += reason != "stop"


class Edits:
    """Writes documents anew while questions are asked."""

    def __init__(self, docs, making):
        self.stop, self.count = threading.Event(), 0
        self.files = sorted(docs.rglob("*.md"))
        self.making = making
        self.thread = threading.Thread(target=self.edit)
        self.thread.start()

    def edit(self):
        while not self.stop.wait(EDIT):
            path = self.files[self.count % len(self.files)]
            new = path.with_suffix(".new")
            new.write_text(self.making.document())
            new.rename(path)
            self.count += 1

    def end(self):
        self.stop.set()
        self.thread.join()


def machine():
    said = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    cpus = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in cpus if line.startswith("model name")), "unknown")
    commit = said("git", "describe", "--always", "--dirty", "--exclude", "*")
    kind = pathlib.Path(os.environ["AGENT_BIN"]).parent.name
    return f"{os.cpu_count()} cores ({cpu}), Linux {platform.release()}, commit {commit}, {kind} build"


def measure(name, docs, making, total, files, seconds):
    """One run; whether it held."""
    hybrid = name == "hybrid"
    forget(docs)
    group = cgroup.Group(LIMIT)
    limit = f"enforced by {group.version()}" if group.folder else f"not enforced: {group.why}"
    agent = Agent(group, docs, servers.start(), hybrid)
    try:
        indexed = agent.wait(lambda: agent.get("/readyz")[0] == 200)
        passages = agent.gauge("agent_index_passages")
        after_index = (group.peak(), agent.status("VmHWM"))
        if hybrid:
            embedded = agent.wait(lambda: agent.gauge("agent_index_vectors") >= passages * 0.99)
        edits = Edits(docs, making)
        load = Load(agent, making.questions)
        load.run(seconds)
        edits.end()
        took = sorted(load.took) or [float("nan")]
        last = statistics.quantiles(took, n=100)[98] if len(took) > 1 else took[0]
        row = lambda what, value: print(f"{what:<66}{value:>14}", flush=True)
        print(f"\n{name}: {total / 1e6:.1f} MB in {files} files, {AT_ONCE} at once for {seconds} s, {LIMIT // MIB} MiB ({limit})")
        row("passages", passages)
        row("until the first index, s", f"{indexed:.1f}")
        if hybrid:
            row(f"until all had their embedding ({servers.DIMENSIONS} numbers), s", f"{embedded:.1f}")
        row("questions answered", len(load.took))
        row("of them refused for want of a passage", load.refused)
        row("questions that failed", len(load.wrong))
        row("questions/s", f"{len(load.took) / seconds:.1f}")
        row("p50 / p99 s (the model takes 0.7)", f"{statistics.median(took):.2f} / {last:.2f}")
        row("documents edited meanwhile", edits.count)
        row("cgroup's peak with its page cache, MiB: first index / in the end", f"{after_index[0] / MIB:.0f} / {group.peak() / MIB:.0f}")
        row("resident at its peak, MiB: first index / in the end", f"{after_index[1]:.0f} / {agent.status('VmHWM'):.0f}")
        row("resident now, MiB: anonymous / of files", f"{agent.status('RssAnon'):.0f} / {agent.status('RssFile'):.0f}")
        row("the kernel had to take pages back, times", group.limit_was_hit())
        row("killed for memory, times", group.kills())
        for wrong in load.wrong[:3]:
            print(wrong)
        alive = agent.process.poll() is None
        return alive and not load.wrong and group.kills() == 0 and agent.status("VmHWM") < LIMIT / MIB
    finally:
        agent.end()
        group.remove()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a fifth of the documents, ten seconds")
    parser.add_argument("--smoke", action="store_true", help="whether it works at all")
    parser.add_argument("which", nargs="*", choices=[[], "words", "hybrid"])
    given = parser.parse_args()
    total, seconds = (BYTES // 5, 10) if given.quick else (BYTES, SECONDS)
    total, seconds = (BYTES // 50, 3) if given.smoke else (total, seconds)
    print(machine())
    print("benches/qa/run", *sys.argv[1:])
    held = True
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as place:
        docs = pathlib.Path(place) / "docs"
        making = corpus.Corpus()
        files, size = making.write(docs, total)
        for name in given.which or ["words", "hybrid"]:
            held &= measure(name, docs, making, size, files, seconds)
    print("\nheld" if held else "\nNOT HELD")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
