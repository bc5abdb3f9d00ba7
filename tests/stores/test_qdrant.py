"""What is special about stores in Qdrant, in its engine and behind a server."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme
from contract import another_process

from conftest import KEY, new_store_name, pagevec
from pagevec.errors import InvalidRequest, NoStore, StoreError
from pagevec.ingest.sources import find_documents
from pagevec.secrets import mask_secrets
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.stores.qdrant.engine import MOST_COMPONENTS, Point, batches
from pagevec.stores.qdrant.remote import Address, RemoteEngine
from pagevec.stores.qdrant.store import QdrantStore
from pagevec.types import DocumentRecord, Page, PageKey
from qdrant_server import QdrantServer, running_grpc, running_qdrant
from vectors import page, unit_vectors


@pytest.fixture(params=["qdrant-embedded", "qdrant-server"])
def store_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an empty store in Qdrant."""
    return new_store_name(request, tmp_path)


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with running_qdrant(QdrantServer()) as server:
        yield server


@pytest.mark.parametrize("dim", [8, 100, 320, 2048])
def test_any_dimension(store: Store, dim: int) -> None:
    """Vectors of any dimension come back exactly as float16 has them, and are found."""
    pages = [Page(PageKey("a", number), unit_vectors(5, number, dim)) for number in range(1, 4)]
    store.add(pages)
    store.save_fingerprint(pages[0].vectors)
    [found] = store.fetch([PageKey("a", 2)])
    np.testing.assert_array_equal(found.vectors, pages[1].vectors.astype(np.float16))
    assert store.candidates(pages[2].vectors, 1) == [PageKey("a", 3)]
    np.testing.assert_array_equal(store.fingerprint(), pages[0].vectors.astype(np.float16))
    with pytest.raises(StoreError, match=f"has vectors of {dim} dimensions, these have 16"):
        store.candidates(unit_vectors(2, 1, dim=16), 1)


def test_a_page_of_very_many_vectors(store: Store) -> None:
    """A long page may have more vectors than Qdrant takes as one point; it is one page anyway."""
    long = Page(PageKey("a", 1), unit_vectors(MOST_COMPONENTS // 128 + 100, 1), {"tiles": 4})
    store.add([long, page("a", 2)])
    store.ledger.write(DocumentRecord("a", "00", 2, True))
    assert (store.count(), store.has("a"), store.documents()) == (2, {1, 2}, {"a": 2})
    assert store.candidates(long.vectors[-20:], 5)[0] == long.key
    store.rename({"a": "b"})
    [found] = store.fetch([PageKey("b", 1)])
    np.testing.assert_array_equal(found.vectors, long.vectors.astype(np.float16))
    assert store.delete("b") == 2
    assert store.candidates(long.vectors[:20], 5) == []


def test_a_page_without_vectors(store: Store) -> None:
    """A page that no query can find is stored like any other."""
    empty = Page(PageKey("a", 1), np.empty((0, 128), np.float32), text="blank")
    store.add([page("a", 2), empty])
    [found] = store.fetch([empty.key])
    assert (found.vectors.shape, found.text, store.count()) == ((0, 128), "blank", 2)
    assert store.candidates(unit_vectors(3, 1), 5) == [PageKey("a", 2)]


@pytest.mark.parametrize("is_switched", [False, True])
def test_a_rename_that_was_cut_off(store_name: str, is_switched: bool) -> None:
    """Wherever a rename stops, documents have one name, and the next start finishes it."""
    names = {"a": "b"}
    with open_store(store_name) as store:
        store.add([page("a", 1), page("a", 2)])
        store.ledger.write(DocumentRecord("a", "00", 2, True))
        store.ledger.begin_rename(names)  # type: ignore[attr-defined]
        store.add([page("b", 1)])  # as far as the copies have come
        assert (store.documents(), store.count(), store.has("b")) == ({"a": 2}, 2, frozenset())
        if is_switched:
            store.add([page("b", 2)])
            store.ledger.switch_rename(names)  # type: ignore[attr-defined]
            assert (store.documents(), store.count(), store.has("a")) == ({"b": 2}, 2, frozenset())
            assert [one.name for one in store.ledger.records()] == ["b"]
    with open_store(store_name) as store:
        assert store.documents() == {"b": 2}
        assert store.ledger.records() == [DocumentRecord("b", "00", 2, True)]
        assert store.fetch([PageKey("a", 1)]) == []
        assert len(store.fetch([PageKey("b", 1), PageKey("b", 2)])) == 2
        store.add([page("a", 1)])  # the old name is free
        assert store.documents() == {"a": 1, "b": 2}


@pytest.mark.long
def test_leases_of_killed_workers(tmp_path: Path) -> None:
    """Whenever a worker is killed while it renews its lease, the next one gets it when it ends."""
    name = f"qdrant:{tmp_path / 'store'}"
    code = """
print("ready", flush=True)
while True:
    store.ledger.lease("a", "first", 0)
"""
    chance = random.Random(7)  # noqa: S311 - repeatable, not secret
    for _ in range(25):
        worker = another_process(name, code)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(0.3 * chance.random())
        worker.kill()
        worker.communicate()
        with open_store(name) as store:
            assert store.ledger.lease("a", "second", 0)
            assert store.ledger.lease("a", "third", 60)
            store.ledger.release("a", "third")


def test_requests_are_bounded() -> None:
    """Points go to a server in requests of a bounded size, each point once and in order."""
    sizes = [3, MOST_COMPONENTS // 2, MOST_COMPONENTS // 2, 5, MOST_COMPONENTS, 0, 7]
    points = [Point(str(number), {}, np.empty(size)) for number, size in enumerate(sizes)]
    made = [[int(point.id) for point in batch] for batch in batches(points)]
    assert made == [[0, 1], [2, 3], [4, 5], [6]]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second process is told that the folder is in use, and gets it once it is free."""
    name = f"qdrant:{tmp_path / 'store'}"
    with open_store(name):
        refused = pagevec("documents", "--store", name)
    assert refused.returncode == 3
    assert "another process has it open" in refused.stderr
    assert pagevec("documents", "--store", name).returncode == 0


def test_there_is_no_store(tmp_path: Path) -> None:
    """A store that shall not be made is not: not even its folder."""
    with pytest.raises(NoStore, match="there is no store"):
        open_store(f"qdrant:{tmp_path / 'none'}", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_folder(tmp_path: Path) -> None:
    """Files of the engine that are cut off are an error in words, not the end of the process."""
    name = f"qdrant:{tmp_path / 'store'}"
    with open_store(name) as store:
        store.add([page("a", 1)])
    for file in (tmp_path / "store" / "128" / "segments").rglob("segment.json"):
        file.write_bytes(b"{")
    with pytest.raises(StoreError, match="cannot use the store"), open_store(name) as store:
        store.count()


def test_the_folder_is_no_document(tmp_path: Path) -> None:
    """Ingestion passes over the folder of a store; a folder of another kind of store is named."""
    open_store(f"qdrant:{tmp_path / 'in' / 'store'}").close()
    (tmp_path / "in" / "a.txt").write_text("fares")
    found = find_documents([tmp_path / "in"])
    assert [one.path.name for one in found.documents] == ["a.txt"]
    with pytest.raises(InvalidRequest, match="its name is qdrant:"):
        open_store(str(tmp_path / "in" / "store"))
    open_store(str(tmp_path / "sqlite")).close()
    with pytest.raises(InvalidRequest, match="is a store in SQLite"):
        open_store(f"qdrant:{tmp_path / 'sqlite'}")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("qdrant://host/pages", Address("http://host:6333", "pages")),
        ("qdrant://host:1/a-b.c_d", Address("http://host:1", "a-b.c_d")),
        ("qdrant+https://host:443/pages", Address("https://host:443", "pages")),
        ("qdrant://[::1]:6333/pages", Address("http://[::1]:6333", "pages")),
        ("qdrant://host/behind/proxy/pages", Address("http://host:6333/behind/proxy", "pages")),
        (
            "qdrant://host/pages?shards=6&replicas=2&grpc=6334",
            Address("http://host:6333", "pages", 6334, 6, 2),
        ),
    ],
)
def test_addresses(address: str, expected: Address) -> None:
    """Addresses name a server and a collection, and how a new collection is spread."""
    assert Address.parse(address) == expected


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("qdrant://host", "expected qdrant://host:6333/NAME"),
        ("qdrant:///pages", "expected qdrant://host:6333/NAME"),
        ("qdrant://host/", "expected qdrant://host:6333/NAME"),
        ("qdrant://host/a b", "expected qdrant://host:6333/NAME"),
        ("qdrant://host:port/pages", "port"),
        ("qdrant://host:99999/pages", "out of range"),
        ("qdrant://host/pages?shard=6", "unknown option 'shard'; there are shards, replicas"),
        ("qdrant://host/pages?shards=many", "shards=many is no number"),
        ("qdrant://host/pages?replicas=0", "replicas=0 is no number from 1"),
        ("qdrant:", "names no folder"),
    ],
)
def test_addresses_that_are_none(address: str, said: str) -> None:
    """What is wrong with an address is said, with what is expected."""
    with pytest.raises(InvalidRequest) as raised:
        open_store(address)
    assert said in raised.value.message


def test_a_key_in_an_address() -> None:
    """A key in an address is refused, and shown nowhere."""
    for address in (f"qdrant://{KEY}@host/pages", f"qdrant+https://:{KEY}@host:1/pages"):
        assert KEY not in mask_secrets(address)
        with pytest.raises(InvalidRequest, match="QDRANT_API_KEY") as raised:
            open_store(address)
        assert KEY not in raised.value.message
    refused = pagevec("documents", "--store", f"qdrant://{KEY}@host/pages")
    assert refused.returncode == 2
    assert "QDRANT_API_KEY" in refused.stderr


def test_the_key(server: QdrantServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The key is of the environment or of `.env`; what is wrong with one is said without it."""
    server.key = KEY
    monkeypatch.chdir(tmp_path)
    name = server.name("pages")
    for wrong, said in ((None, "401"), ("wrong-key-123", "401"), ("two\nkeys", "several keys")):
        if wrong is not None:
            monkeypatch.setenv("QDRANT_API_KEY", wrong)
        with pytest.raises((StoreError, InvalidRequest)) as raised:
            open_store(name)
        assert said in raised.value.message
        assert "QDRANT_API_KEY" in raised.value.message
        assert wrong is None or wrong not in raised.value.message
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    open_store(name).close()
    monkeypatch.delenv("QDRANT_API_KEY")
    (tmp_path / ".env").write_text(f"QDRANT_API_KEY={KEY}\n")
    with open_store(name, create=False) as store:
        assert store.count() == 0
        server.key = "another"
        with pytest.raises(StoreError, match="401"):
            store.ledger.records()


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`qdrant+https://` speaks TLS, and trusts the authorities that the environment names."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    tls = {"ssl_certfile": tmp_path / "server.pem", "ssl_keyfile": tmp_path / "server.pem"}
    with running_qdrant(QdrantServer(), **tls) as server:
        name = server.name("pages", "qdrant+https")
        with pytest.raises(StoreError, match=r"cannot be reached.*CERTIFICATE_VERIFY_FAILED"):
            open_store(name)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with open_store(name) as store:
            store.add([page("a", 1)])
            assert store.count() == 1


def test_servers_that_will_not_do(server: QdrantServer) -> None:
    """A server that is too old, is something else or is away is an error in words, at once."""
    server.version = "1.15.4"
    with pytest.raises(StoreError, match=r"is Qdrant 1\.15\.4: it needs 1\.16 or newer"):
        open_store(server.name("pages"))
    server.version = "1.16.0"
    with pytest.raises(StoreError, match="does not answer as Qdrant does"):
        open_store(server.name("no/such/proxy/pages"))
    with pytest.raises(NoStore, match=r"there is no store at the store pages in Qdrant"):
        open_store(server.name("pages"), create=False)
    start = time.monotonic()
    with pytest.raises(StoreError, match=r"cannot be reached: .*refused"):
        open_store("qdrant://127.0.0.1:9/pages")
    assert time.monotonic() - start < 10


def test_a_key_that_may_only_read(server: QdrantServer) -> None:
    """A key that may read is enough to search; a rename that is cut off does not stop it."""
    with open_store(server.name("pages")) as store:
        store.add([page("a", 1)])
        store.ledger.write(DocumentRecord("a", "00", 1, True))
        store.ledger.begin_rename({"a": "b"})  # type: ignore[attr-defined]
    server.is_read_only = True
    with open_store(server.name("pages"), create=False) as store:
        assert store.candidates(page("a", 1).vectors, 1) == [PageKey("a", 1)]
        with pytest.raises(StoreError, match=r"403.*may not do that"):
            store.add([page("a", 2)])


def test_grpc(server: QdrantServer) -> None:
    """With a port for gRPC, everything but the first look goes there, with the same results."""
    with running_grpc(server) as port:
        name = server.name(f"pages?grpc={port}")
        with open_store(name) as store:
            added = [page("a", number, metadata={"n": number}, text="x") for number in range(1, 40)]
            store.add(added)
            store.ledger.write(DocumentRecord("a", "00", 39, True))
            assert store.ledger.lease("a", "first", 60)
            assert not store.ledger.lease("a", "second", 60)
            store.rename({"a": "b"})
            assert (store.documents(), store.metadata_names()) == ({"b": 39}, {"n"})
            assert store.candidates(added[4].vectors, 1) == [PageKey("b", 5)]
            [found] = store.fetch([PageKey("b", 5)])
            np.testing.assert_array_equal(found.vectors, added[4].vectors.astype(np.float16))
            assert store.delete("b") == 39
        assert set(server.requests) == {"GET /"}
    with pytest.raises(StoreError):
        open_store(name)


def test_the_clock_is_the_servers(server: QdrantServer) -> None:
    """Leases are measured by the time in the server's answers, to the second."""
    engine = RemoteEngine.at(server.name("pages"))
    assert abs(engine.now() - time.time()) < 2
    with QdrantStore(engine) as store:
        assert store.ledger.lease("a", "first", 60)
        engine._ahead += 59
        assert not store.ledger.lease("a", "second", 60)
        engine._ahead += 2
        assert store.ledger.lease("a", "second", 60)


def test_a_forked_process(store: Store) -> None:
    """A store that was opened before a fork says so, and does not touch what is its parent's."""
    store.add([page("a", 1)])
    child = os.fork()
    if child == 0:
        try:
            store.count()
        except StoreError as error:
            os._exit(0 if "before this process was forked" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.count() == 1
