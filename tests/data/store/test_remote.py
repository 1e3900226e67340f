"""Stores behind a URL: the clips of the local store to the bit, few requests, and one line when the network fails."""

import pickle
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import torch
from support import flat, run_commands, write_video, zhang

from avsc_e2e.data.dataset import ClipDataset, Key, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.sets.corpus import read_corpus, read_evaluation_set
from avsc_e2e.data.store import remote
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import _open_url, open_store
from avsc_e2e.errors import AvscError

WANT = Sampling(sample_rate=48_000, short_side=64, frames=5)


class Handler(BaseHTTPRequestHandler):
    """Files of a folder, by ranges; `faults` are functions that answer a request in its place, each used once."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        server.requests.append((self.path.rpartition("/")[2], first, last))
        file = server.folder / self.path.lstrip("/")
        if server.faults and server.faults[0](self):
            server.faults.pop(0)
        elif not file.is_file():
            self.send_error(server.absent)
        else:
            data = file.read_bytes()
            ranged = server.ranges and first != ""
            part = data[int(first) : int(last) + 1] if ranged else data
            self.send_response(206 if ranged else 200)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.requests, self.faults, self.ranges, self.absent = folder, [], [], True, 404
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


@pytest.fixture(scope="module")
def stores(toy_city, tmp_path_factory):
    """A folder with a store of the toy city in several shards, and one of class folders."""
    folder = tmp_path_factory.mktemp("stores")
    prepare(toy_city, folder / "city", Options(short_side=64), workers=1, shard_size=2 << 20)
    assert len(list((folder / "city").glob("*.tar"))) > 2
    return folder


@pytest.fixture
def server(stores, monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    with Server(stores) as server:
        yield server
        server.shutdown()
    _open_url.cache_clear()


def in_memory(folder: Path, name: str) -> str:
    memory = fsspec.filesystem("memory")
    for file in folder.rglob("*"):
        if file.is_file():
            memory.pipe(f"/{name}/{file.relative_to(folder)}", file.read_bytes())
    return f"memory://{name}"


def same(a, b) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(tuple(a), tuple(b), strict=True)
    )


@pytest.mark.parametrize("protocol", ["http", "file", "memory"])
def test_clips_are_those_of_the_folder(stores, server, protocol):
    """Rows, windows, pictures and sound; in evaluation and training; read in the order of an epoch."""
    local = stores / "city"
    url = {
        "http": lambda: f"{server.url}/city/",
        "file": lambda: f"file://{local}",
        "memory": lambda: in_memory(local, "equal"),
    }[protocol]()
    assert is_store(url)
    here, there = (read_corpus(root, validation=0.5, seed=3) for root in (local, url))
    assert here == there
    for part, windows in ((here.test, 0), (here.train, 2)):
        a, b = (
            ClipDataset(part, here.classes, WANT, windows=windows, seed=1, store=open_store(root))
            for root in (local, url)
        )
        keys = [Key(1, index) if windows else index for index in torch.randperm(len(a)).tolist()]
        assert all(same(a[key], b[key]) for key in keys)


def test_few_requests_and_none_twice(stores, server):
    """A segment's five frames are one request and its sound another; lists are fetched once in a process."""
    corpus = read_corpus(f"{server.url}/city", validation=0.5)
    store = open_store(f"{server.url}/city")
    assert len({name for name, *_ in server.requests}) == len(server.requests)
    dataset = ClipDataset(corpus.test, corpus.classes, WANT, store=store)
    server.requests.clear()
    dataset[0]
    assert len(server.requests) == 2
    dataset[0]
    assert len(server.requests) == 2
    store.shards.parts(store.recordings[corpus.test[0].file].shard, [(0, 10), (5, 0), (remote.BLOCK * 2, 10)])
    assert len(server.requests) <= 3
    sizes = [int(last) - int(first) + 1 for name, first, last in server.requests]
    whole = sum(file.stat().st_size for file in (stores / "city").glob("*.tar"))
    assert sum(sizes) < whole / 2


def test_kept_blocks_are_bounded(stores, server, monkeypatch):
    monkeypatch.setattr(remote, "KEPT", 3)
    corpus = read_corpus(f"{server.url}/city", validation=0.5)
    a, b = (ClipDataset(corpus.test, corpus.classes, WANT, store=open_store(root))
            for root in (stores / "city", f"{server.url}/city"))  # fmt: skip
    assert all(same(a[index], b[index]) for index in range(len(a)))
    assert len(b.store.shards._blocks) <= 3


def test_loader_processes_connect_for_themselves(stores, server):
    corpus = read_corpus(f"{server.url}/city", validation=0.5)
    a, b = (ClipDataset(corpus.test, corpus.classes, WANT, store=open_store(root))
            for root in (stores / "city", f"{server.url}/city"))  # fmt: skip
    b[0]  # a connection that must not be carried along
    copy = pickle.loads(pickle.dumps(b.store))
    assert copy.shards.requests == 0
    assert not copy.shards._blocks
    batches = [list(loader(dataset, 8, shuffle=False, workers=workers)) for dataset, workers in ((a, 0), (b, 2))]
    assert len(batches[0]) == 3
    assert all(same(x, y) for x, y in zip(*batches, strict=True))


def test_class_folders_and_the_evaluation_set(toy_city, tmp_path):
    """The parts of class folders, and the numbers of the evaluation set, are in the store alone."""
    names = [path.stem for path in sorted((toy_city / "audio").glob("*.wav"))][:12]
    for number, name in enumerate(names):
        for modality, suffix in (("audio", "wav"), ("video", "mp4")):
            source = toy_city / modality / f"{name}.{suffix}"
            part = ("train", "validation", "test")[number % 3]
            for target in (
                tmp_path / "own" / part / f"class{number % 2}" / f"{name}.{suffix}",
                tmp_path / "evaluation" / modality / f"{number}.{suffix}",
            ):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
    for kind, read in (("own", read_corpus), ("evaluation", read_evaluation_set)):
        prepare(tmp_path / kind, tmp_path / f"{kind}.store", Options(short_side=64), workers=1)
        assert read(in_memory(tmp_path / f"{kind}.store", kind)) == read(tmp_path / f"{kind}.store")
    with pytest.raises(AvscError, match=r"memory://evaluation: is a store of the evaluation set, which has no labels"):
        read_corpus("memory://evaluation")


def test_a_list_to_validate_on_lies_in_the_store(stores, server, tmp_path):
    lines = (stores / "city" / "evaluation_setup" / "fold1_train.csv").read_text().splitlines(keepends=True)
    (stores / "city" / "evaluation_setup" / "mine.csv").write_text("".join([lines[0], *lines[1::4]]))
    corpus = read_corpus(f"{server.url}/city", validation="evaluation_setup/mine.csv")
    assert corpus == read_corpus(stores / "city", validation="evaluation_setup/mine.csv")
    with pytest.raises(AvscError, match=rf"^nowhere\.csv: no such validation list, here or in {server.url}/city$"):
        read_corpus(f"{server.url}/city", validation="nowhere.csv")
    # Storage that does not let everyone list refuses what is absent.
    server.absent = 403
    assert read_corpus(f"{server.url}/city", validation="evaluation_setup/mine.csv") == corpus
    with pytest.raises(AvscError, match=rf"^{server.url}/city: no evaluation_setup/fold7_train\.csv in it"):
        read_corpus(f"{server.url}/city", fold=7)


def cut(handler):
    handler.send_response(206)
    handler.send_header("Content-Length", "5000000")
    handler.end_headers()
    handler.wfile.write(b"x" * 100)
    handler.close_connection = True
    return True


def busy(handler):
    handler.send_error(503)
    return True


def forbidden(handler):
    handler.send_error(403)
    return True


def senseless(handler):
    handler.send_error(400)
    return True


def test_failures_that_pass_are_not_seen(stores, server):
    url = f"{server.url}/city"
    server.faults += [busy]
    corpus = read_corpus(url, validation=0.5)
    a, b = (ClipDataset(corpus.test, corpus.classes, WANT, store=open_store(root)) for root in (stores / "city", url))
    server.faults += [cut, busy]
    assert same(a[0], b[0])
    assert not server.faults


def test_failures_that_stay_are_one_line(stores, server, tmp_path):
    """With the address; also from loader processes, and whatever is done with bad media."""
    url = f"{server.url}/city"
    corpus = read_corpus(url, validation=0.5)
    dataset = ClipDataset(corpus.test, corpus.classes, WANT, store=open_store(url), on_bad="skip")

    def fails(match, read=lambda: dataset[0]):
        with pytest.raises(AvscError, match=match) as error:
            read()
        assert type(error.value) is AvscError
        assert "\n" not in str(error.value)

    server.faults += [busy] * 3
    fails(r"^http://127.*\.tar: cannot be fetched after 3 tries \(.*503.*resume$")
    server.faults += [forbidden]
    fails(r"\.tar: access is refused \(.*403")
    server.faults += [senseless]
    fails(r"\.tar: access is refused \(.*400")
    server.ranges = False
    fails(r"\.tar: \d+ bytes came where \d+ were asked for: the server does not serve ranges")
    server.ranges = True
    server.folder = tmp_path
    fails(r"^http://127.*\.tar: is not there")
    fails(rf"^{server.url}/nothing/store\.json: is not there", lambda: open_store(f"{server.url}/nothing"))
    server.faults += [forbidden]
    fails(rf"^{server.url}/nothing/store\.json: access is refused", lambda: open_store(f"{server.url}/nothing"))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "store.json").write_text('{"format": 99}')
    fails(r"old/store\.json: not of a store that this version reads", lambda: open_store(f"{server.url}/old"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/city"
    fails(rf"^{dead}/store\.json: cannot be fetched after 3 tries \(.*Cannot connect", lambda: open_store(dead))
    fails(r"^what://is/this: cannot be opened: .*what", lambda: open_store("what://is/this"))
    (tmp_path / "clips" / "park").mkdir(parents=True)
    write_video(tmp_path / "clips" / "park" / "a.mp4", [flat(90)] * 5)
    fails(
        rf"^{server.url}/store/?\S*: this protocol can only be read",
        lambda: prepare(tmp_path / "clips", f"{server.url}/store"),
    )
    server.folder = stores
    # At the end: the worker may still be asking when its error has been told. A refusal is not asked again, whereas a
    # worker process has waits of its own, of seconds, before it gives up on a busy server.
    server.faults += [forbidden] * 12
    fails(r"^http://127.*\.tar: access is refused", lambda: list(loader(dataset, 4, shuffle=False, workers=1)))


def test_an_index_of_another_shard(stores, server):
    """What a half-made copy looks like."""
    url = f"{server.url}/city"
    store = open_store(url)
    row = store.rows()[""][0]
    shard = store.recordings[row.file].shard
    store.shards.sizes[shard] = 1024
    with pytest.raises(AvscError, match=r"\.tar: its index points beyond its end"):
        store.read_frames(row, [1.5], 64)


def test_a_protocol_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(AvscError, match=r"^s3://bucket/store: cannot be opened: .*s3fs"):
        open_store("s3://bucket/store")


def test_train_and_evaluate_from_a_url(stores, server, tmp_path):
    """As from the folder, to the bit, with the URL as the root or as the store of a root; a store that is not there is
    one line."""
    local, url = stores / "city", f"{server.url}/city"
    lines = []
    for name, root in (("local", local), ("url", url)):
        lines += [
            zhang("train", "audio", root, tmp_path / name, "--epochs", "1"),
            zhang("evaluate", "audio", root, tmp_path / name),
        ]
    lines.append(zhang("evaluate", "audio", local, tmp_path / "local", "--data.store", url))
    lines.append(zhang("train", "audio", f"{server.url}/elsewhere", tmp_path / "none"))
    done = run_commands(*lines)
    for command in done[:-1]:
        assert command.status == 0, command.err
    a, b = ((tmp_path / run / "zhang_ioa/audio/evaluation/segments.csv").read_bytes() for run in ("local", "url"))
    assert a == b
    assert done[-1].status == 2
    told = f"{server.url}/elsewhere/store.json: is not there: copy the whole store to its place again"
    assert done[-1].err.strip().splitlines()[-1].endswith(told)
