"""What a serving process does before and after a migration; each runs in a process of its own."""

import hashlib
import json
import time
from pathlib import Path

from demo_lib.transformer import Shape

from serving_lib.blocks import KINDS, Kind, ResidentCache, block_path, write_file
from serving_lib.jobs import Job, do_job
from serving_lib.model import Model, tokenise

_SESSION = "session.json"


class Server:
    """A process that serves one sequence.

    Args:
        job: with the model's shape and seed, the kind of its cache and the tokens in a block.
    """

    def __init__(self, job: Job) -> None:
        shape = Shape(**job["shape"])
        self._kind: Kind = KINDS[job["kind"]]
        self._model = Model(shape, job["seed"])
        self._cache = ResidentCache(shape, self._kind, job["block_tokens"])
        self._tokens: list[int] = []
        self._written = 0
        self.sums: dict[str, str] = {}

    def serve(self, job: Job) -> Job:
        """Serve a prompt, write the blocks as they fill, stop for a moment and write the rest; then go on."""
        directory = Path(job["directory"])
        self._tokens = tokenise(Path(job["text"]).read_bytes(), job["prompt"])
        started = time.perf_counter()
        for logits in self._model.prefill(self._tokens, self._cache):
            if self._cache.length == job["prompt"]:
                self._tokens = [*self._tokens, self._model.draw(logits, job["prompt"])]
                first = time.perf_counter() - started
            self._write_full_blocks(directory)
        self._go_on(job["before"] - 1, directory)
        self._write_all(directory)
        stopped = len(self._tokens)
        self._go_on(job["after"], None)
        return {"tokens": self._tokens[stopped:], "first_token_s": first, "sums": self.sums}

    def resume(self, job: Job) -> Job:
        """Go on with the blocks in a directory; write those that are new into another, after some tokens."""
        started = time.perf_counter()
        source = Path(job["directory"])
        session = json.loads((source / _SESSION).read_bytes())
        self._tokens = session["tokens"]
        blocks = -(-session["cached"] // self._cache.block_tokens)
        for number in range(blocks):
            path = block_path(source, number, self._kind)
            content = path.read_bytes()
            self.sums[path.name] = hashlib.sha256(content).hexdigest()
            self._cache.add(content)
        read = time.perf_counter() - started
        if self._cache.length != session["cached"]:
            raise ValueError(f"{self._cache.length} tokens are in the blocks, {session['cached']} should be")
        sums = dict(self.sums)
        self._written = session["cached"] // self._cache.block_tokens
        stopped = len(self._tokens)
        self._go_on(1, None)
        first = time.perf_counter() - started
        if job["target"] is not None:
            self._go_on(job["before"] - 1, Path(job["target"]))
            self._write_all(Path(job["target"]))
        self._go_on(job["after"] + stopped - len(self._tokens), None)
        return {"tokens": self._tokens[stopped:], "read_s": read, "first_token_s": first, "sums": sums}

    def _go_on(self, steps: int, directory: Path | None) -> None:
        for tokens in self._model.generate(self._tokens, steps, self._cache):
            self._tokens = tokens
            if directory is not None:
                self._write_full_blocks(directory)

    def _write_full_blocks(self, directory: Path) -> None:
        while (self._written + 1) * self._cache.block_tokens <= self._cache.length:
            self._write_block(directory, self._written)
            self._written += 1

    def _write_all(self, directory: Path) -> None:
        """Write what a process elsewhere needs to go on, beside the blocks that are written already."""
        self._write_full_blocks(directory)
        if self._written * self._cache.block_tokens < self._cache.length:
            self._write_block(directory, self._written)
        session = {"tokens": self._tokens, "cached": self._cache.length}
        write_file(directory / _SESSION, json.dumps(session).encode())

    def _write_block(self, directory: Path, number: int) -> None:
        path = block_path(directory, number, self._kind)
        content = self._cache.content(number)
        self.sums[path.name] = hashlib.sha256(content).hexdigest()
        write_file(path, content)


def work(job: Job) -> Job:
    """Do a job: serve, or resume."""
    server = Server(job)
    return server.serve(job) if job["do"] == "serve" else server.resume(job)


if __name__ == "__main__":
    do_job(work)
