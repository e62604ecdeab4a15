"""The artifact store on S3, served by moto: the same promises as on a folder."""

import threading
from collections.abc import Iterator

import pytest

from astrid_workers.errors import ArtifactDamaged, ServiceUnavailable
from astrid_workers.storage.artifacts import ArtifactStore
from support.required import required


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        required("S3", f"moto[server] is not installed ({error})")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint, monkeypatch):
    """A client of the server with an empty bucket, configured as a worker is: by variables."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="artifacts")
    yield client
    for item in client.list_objects_v2(Bucket="artifacts").get("Contents", []):
        client.delete_object(Bucket="artifacts", Key=item["Key"])


@pytest.fixture
def store(s3):
    return ArtifactStore("s3://artifacts/astrid/")


def test_bytes_come_back_by_key_and_checksum(store, s3):
    """Under the prefix, as plain objects."""
    artifact = store.put("observations/1/raw.fits", b"pixels")
    assert store.get(artifact.key, artifact.sha256) == b"pixels"
    assert s3.get_object(Bucket="artifacts", Key="astrid/observations/1/raw.fits")["Body"].read() == b"pixels"
    assert store.exists(artifact.key)
    assert not store.exists("observations/1")
    assert not store.exists("observations/2/raw.fits")


def test_the_same_bytes_again_are_a_no_op_and_others_go_beside(store, s3):
    """Nothing that a row may point at is replaced."""
    first, again, other = (store.put("a/b.fits", data) for data in (b"x", b"x", b"y"))
    assert first == again
    assert other.key.startswith("a/b~")
    assert [store.get(a.key, a.sha256) for a in (first, other)] == [b"x", b"y"]
    assert len(s3.list_objects_v2(Bucket="artifacts")["Contents"]) == 2


def test_a_reader_sees_what_another_process_wrote_meanwhile(store, s3):
    """No listing is remembered."""
    assert not store.exists("a/late.fits")
    s3.put_object(Bucket="artifacts", Key="astrid/a/late.fits", Body=b"late")
    assert store.exists("a/late.fits")
    assert store.get("a/late.fits") == b"late"


def test_many_writers_of_one_key_all_keep_their_bytes(store):
    """Conditional writes settle the race."""
    together = threading.Barrier(6)
    kept = {}

    def write(i):
        together.wait()
        kept[i] = store.put("k.fits", bytes([i % 3]) * 100)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: store.get(a.key, a.sha256) for i, a in kept.items()} == {
        i: bytes([i % 3]) * 100 for i in range(6)
    }


def test_damage_and_absence_are_said(store, s3):
    """With key and store."""
    artifact = store.put("a.fits", b"good")
    s3.put_object(Bucket="artifacts", Key="astrid/a.fits", Body=b"evil")
    with pytest.raises(ArtifactDamaged, match=r"a\.fits in s3://artifacts/astrid is damaged"):
        store.get(artifact.key, artifact.sha256)
    with pytest.raises(ServiceUnavailable, match=r"s3://artifacts/astrid has no artifact none\.fits"):
        store.get("none.fits")


def test_addresses_are_recognised_within_the_prefix_only(store):
    """Another prefix of the same bucket is somebody else's."""
    assert store.key_of("s3://artifacts/astrid/incoming/x.fits") == "incoming/x.fits"
    assert store.key_of("s3://artifacts/other/x.fits") is None
    assert store.key_of("s3://artifacts/astrid-2/x.fits") is None


@pytest.mark.parametrize("bucket", ["no-such-bucket"])
def test_a_bucket_that_is_not_there_is_said(s3, bucket):
    """It may be made later; the work waits."""
    with pytest.raises(ServiceUnavailable, match=f"s3://{bucket}/x"):
        ArtifactStore(f"s3://{bucket}/x").put("a.fits", b"")


def test_a_server_that_is_gone_is_a_service_that_a_retry_may_help(s3, monkeypatch):
    """With its name."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(
        "astrid_workers.storage.artifacts._S3_TIMEOUTS",
        {"connect_timeout": 1, "retries": {"max_attempts": 1}},
    )
    with pytest.raises(ServiceUnavailable, match=r"s3://gone/x does not answer"):
        ArtifactStore("s3://gone/x").get("a.fits")
