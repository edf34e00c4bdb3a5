"""Tables at URLs: the same bits as local ones, read in parts, noticed when they change, and no secret is written."""

import gzip
import io
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from linreg.checkpoint import load
from linreg.data.cache import cache_folder, entries
from linreg.data.sources import DATASETS
from linreg.data.tables import remote
from linreg.errors import DataError, SpecError
from tests.conftest import fingerprint, write_spec
from tests.data.stores import Web, free_port, google, moto, send
from tests.data.test_mapped import trained_otherwise
from tests.data.test_own_rows import in_group, rows_of

KEY_ID, SECRET, TOKEN = "AKIAQZ3LINREGTEST", "sEcReTsEcReTsEcReTsEcReT", "t0kEnt0kEnt0kEn"
COLUMNS = {name: np.random.RandomState(i).rand(300) for i, name in enumerate(["a", "b", "y"])}


def as_csv(columns=COLUMNS):
    rows = zip(*columns.values(), strict=True)
    return "".join(f"{','.join(map(str, row))}\n" for row in [tuple(columns), *rows]).encode()


def as_file(write, columns=COLUMNS, **options):
    buffer = io.BytesIO()
    write(pa.table(columns), buffer, **options)
    return buffer.getvalue()


CONTENTS = {
    "t.csv": as_csv(),
    "t.csv.gz": gzip.compress(as_csv()),
    "t.csv.zip": None,
    "t.parquet": as_file(parquet.write_table),
    "t.feather": as_file(feather.write_feather, compression="uncompressed"),
    "t.jsonl": "".join(
        f'{{"a": {a}, "b": {b}, "y": {y}}}\n' for a, b, y in zip(*COLUMNS.values(), strict=True)
    ).encode(),
}


def zipped():
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", as_csv())
    return buffer.getvalue()


CONTENTS["t.csv.zip"] = zipped()
LARGE_COLUMNS = {name: np.random.RandomState(i).rand(200_000) for i, name in enumerate(["a", "y"])}
LARGE = as_file(parquet.write_table, LARGE_COLUMNS, row_group_size=10_000)


@pytest.fixture(scope="module")
def s3():
    with moto() as address:
        yield address


@pytest.fixture(scope="module")
def gs():
    with google() as address:
        yield address


@pytest.fixture
def web():
    with Web() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Credentials, and no file system of another test."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN,
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    remote.file_system.cache_clear()
    yield
    remote.file_system.cache_clear()


@pytest.fixture
def bucket(s3, monkeypatch):
    """Put files into an empty bucket `tables`; `bucket(name, content)` does so."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    send(f"{s3}/moto-api/reset", method="POST")
    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="tables")
    return lambda name, content: client.put_object(Bucket="tables", Key=name, Body=content)


@pytest.fixture
def store(request, monkeypatch):
    """Put a file into the store of a scheme: `store(scheme, name, content)` returns its URL."""

    def put(scheme, name, content):
        if scheme == "s3":
            request.getfixturevalue("bucket")(name, content)
        elif scheme == "gs":
            address = request.getfixturevalue("gs")
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
            quoted = urllib.parse.quote(name, safe="")
            send(f"{address}/upload/storage/v1/b/tables/o?uploadType=media&name={quoted}", content, "POST")
        else:
            server = request.getfixturevalue("web")
            server.files[f"/{name}"] = content
            return f"{server.address}/{name}"
        return f"{scheme}://tables/{name}"

    return put


def source(path, name=None, **params):
    name = name or Path(path).name.removesuffix(".gz").removesuffix(".zip").rpartition(".")[2]
    params = {"name": name, "path": path, "target": "y", **params}
    return DATASETS.build(DATASETS.check(params), where="data.source")


def served(web, monkeypatch, scheme, name, content):
    """Put a file into the server that also answers what arrow asks of S3; return its URL."""
    web.files[f"/{name}"] = web.files[f"/tables/{name}"] = content
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.address)
    return f"s3://tables/{name}" if scheme == "s3" else f"{web.address}/{name}"


def table_spec(path, name="csv", **changes):
    source = {"name": name, "path": str(path), "target": "y"}
    return write_spec(data__source=source, **{"data__standardize": True, "epochs": 4, **changes})


def refusal(path, **params):
    with pytest.raises((DataError, SpecError)) as caught:
        fingerprint(source(path, **params))
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "gs", "http"])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_remote_table_has_the_points_of_the_local_one(store, scheme, name):
    Path(name).write_bytes(CONTENTS[name])
    url = store(scheme, f"in/{name}", CONTENTS[name])
    assert fingerprint(source(url)) == fingerprint(source(name))


@pytest.mark.parametrize("scheme", ["s3", "gs", "http"])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_a_run_on_a_remote_table_has_the_bits_of_one_on_the_local_table(linreg, store, scheme, name, memory):
    Path(name).write_bytes(CONTENTS[name])
    url, format, changes = store(scheme, name, CONTENTS[name]), name[2:], {"data__memory": memory}
    answers = []
    for number, place in (("001", name), ("002", url)):
        assert linreg("train", table_spec(place, format, **changes)).code == 0
        assert linreg("resume", f"checkpoints/small_{number}/last.pth", "--epochs", "6").code == 0
        assert linreg("predict", "--input", place, "--keep", "y", "--output", "p.csv").code == 0
        measured = linreg("evaluate", "--json").out, linreg("evaluate", "--data", place, "--json").out
        answers.append((Path("p.csv").read_text(), *(text.partition('"n_samples"')[2] for text in measured)))
    assert answers[0] == answers[1]
    a, b = (f"checkpoints/small_{number}/last.pth" for number in ("001", "002"))
    assert trained_otherwise(a, b) == []
    assert load(a).data_fingerprint == load(b).data_fingerprint
    assert load(b).spec["data"]["source"]["path"] == url


def test_the_exact_solution_sweeps_and_folds_read_remote_tables(linreg, bucket):
    bucket("t.csv", CONTENTS["t.csv"])
    spec = table_spec("s3://tables/t.csv")
    assert linreg("train", spec, "solver=exact", "data.memory=mapped").code == 0
    assert linreg("inspect", "--robust", "HC3").code == 0
    assert linreg("sweep", spec, "optimizer.lr=0.01,0.1").code == 0
    assert linreg("cv", spec, "--folds", "3").code == 0


def test_init_describes_a_remote_table_as_the_local_one(linreg, bucket):
    bucket("t.csv", CONTENTS["t.csv"])
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    there, here = linreg("init", "s3://tables/t.csv", "--target", "y"), linreg("init", "t.csv", "--target", "y")
    assert there.out.replace("'s3://tables/t.csv'", "t.csv") == here.out
    Path("t.yaml").write_text(there.out)
    assert linreg("train", "t.yaml", "--epochs", "2").code == 0


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_the_objects_under_a_prefix_are_one_table_in_order_of_name(store, scheme):
    lines = CONTENTS["t.csv"].splitlines(keepends=True)
    store(scheme, "part/2.csv", b"".join([lines[0], *lines[150:]]))
    store(scheme, "part/1.csv", b"".join(lines[:150]))
    store(scheme, "part/.hidden.csv", b"x")
    store(scheme, "part/readme.md", b"x")
    store(scheme, "part/deeper/3.csv", b"x")
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    for path in (f"{scheme}://tables/part", f"{scheme}://tables/part/"):
        assert fingerprint(source(path, name="csv")) == fingerprint(source("t.csv"))
    several = [f"{scheme}://tables/part/1.csv", f"{scheme}://tables/part/2.csv"]
    found = source(several, name="csv")
    assert [str(file) for file in found.files] == several
    assert fingerprint(found) == fingerprint(source("t.csv"))
    assert "a folder without a file that ends with .parquet or .pq" in refusal(
        f"{scheme}://tables/part", name="parquet"
    )


def test_separate_parts_are_read_from_urls_and_one_in_two_parts_is_refused(linreg, bucket):
    bucket("t.csv", CONTENTS["t.csv"])
    bucket("v.csv", CONTENTS["t.csv"])
    spec = table_spec("s3://tables/t.csv")
    assert linreg("train", spec, "data.split.val=s3://tables/v.csv").code == 0
    answer = linreg("train", spec, "data.split.val=s3://tables/t.csv")
    assert answer.code == 2
    assert "val: s3://tables/t.csv is also in another part; remove it from one" in answer.err


def test_few_columns_of_a_parquet_file_are_read_without_the_others(web, monkeypatch):
    rng = np.random.RandomState(0)
    content = as_file(parquet.write_table, {f"c{i}": rng.rand(20_000) for i in range(20)}, row_group_size=5_000)
    web.files["/tables/w.parquet"] = web.files["/w.parquet"] = content
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.address)
    for path in ("s3://tables/w.parquet", f"{web.address}/w.parquet"):
        web.n_sent = 0
        fingerprint(source(path, target="c3", features=["c7"]))
        assert len(content) * 2 / 20 < web.n_sent < len(content) * 0.2


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_row_group_is_requested_at_once_and_kept_no_longer_than_it_is_read(web, monkeypatch, scheme):
    path = served(web, monkeypatch, scheme, "t.parquet", LARGE)
    points, before, most = source(path), pa.total_allocated_bytes(), 0
    web.requests.clear()
    for _ in points.blocks():
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 0.3 * len(LARGE)
    assert sum(verb == "GET" for verb, *_ in web.requests) < 20 + 10  # row groups, and the metadata


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_process_requests_only_row_groups_with_rows_of_its_shards(web, monkeypatch, scheme):
    path = served(web, monkeypatch, scheme, "t.parquet", LARGE)
    found = in_group(2, lambda shards: rows_of(source(path), shards)[0])
    assert [len(rows) for rows in found] == [80_000, 120_000]  # of 5 shards
    assert np.array_equal(np.concatenate(found), np.column_stack(list(LARGE_COLUMNS.values())))
    assert web.n_sent < 2.3 * len(LARGE)  # in two passes


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_each_process_reads_a_remote_csv_file_and_keeps_the_rows_of_its_shards(web, monkeypatch, scheme):
    path = served(web, monkeypatch, scheme, "t.csv", CONTENTS["t.csv"])
    found = in_group(2, lambda shards: rows_of(source(path), shards)[0])
    assert [len(rows) for rows in found] == [120, 180]  # of 5 shards
    assert np.array_equal(np.concatenate(found), np.column_stack(list(COLUMNS.values())))


def test_a_csv_file_is_read_in_parts_of_limited_size(web, monkeypatch):
    web.files["/tables/t.csv"] = b"a,y\n" + b"1,2\n" * 2_500_000
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.address)
    assert sum(len(block.x) for block in source("s3://tables/t.csv").blocks()) == 2_500_000
    parts = [headers["range"].removeprefix("bytes=").split("-") for verb, _, headers in web.requests if verb == "GET"]
    assert max(int(last) - int(first) + 1 for first, last in parts) == remote.STREAM_BYTES < 10_000_004


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_map_is_reused_until_the_object_changes(linreg, web, monkeypatch, scheme):
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.address)
    web.files["/tables/t.csv"] = CONTENTS["t.csv"]
    url = "s3://tables/t.csv" if scheme == "s3" else f"{web.address}/tables/t.csv"
    spec = table_spec(url, data__memory="mapped")
    assert "converting the data" in linreg("train", spec).err
    n_first = web.n_sent
    assert "converting the data" not in linreg("train", spec).err
    assert n_first - (web.n_sent - n_first) >= len(CONTENTS["t.csv"])  # the rows were not read again
    web.files["/tables/t.csv"] = CONTENTS["t.csv"].replace(b"0.5", b"0.6", 1)  # of the same size
    assert "converting the data" in linreg("train", spec).err
    assert [entry.source for entry in entries(cache_folder())] == [url, url]


def test_a_web_server_without_tags_is_read_again_each_time(linreg, web):
    web.files["/t.csv"], web.tags = CONTENTS["t.csv"], False
    spec = table_spec(f"{web.address}/t.csv", data__memory="mapped")
    for _ in range(2):
        assert "converting the data" in linreg("train", spec).err
    assert len(entries(cache_folder())) == 1


def test_a_changed_object_is_refused_on_resume_as_a_changed_file(linreg, bucket):
    errors = []
    for path in ("t.csv", "s3://tables/t.csv"):
        for content in (CONTENTS["t.csv"], CONTENTS["t.csv"].replace(b"0.5", b"0.6", 1)):
            bucket("t.csv", content)
            Path("t.csv").write_bytes(content)
            if content == CONTENTS["t.csv"]:
                assert linreg("train", table_spec(path)).code == 0
        (checkpoint,) = Path("checkpoints").glob("small_*/last.pth")
        answer = linreg("resume", checkpoint, "--epochs", "6")
        shutil.rmtree("checkpoints")
        shutil.rmtree("runs")
        errors.append((answer.code, answer.err))
    assert errors[0] == errors[1]
    assert "has changed" in errors[0][1]


def test_an_object_that_changes_while_it_is_read_is_an_error(web, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.address)
    content = b"a,y\n" + b"1,2\n" * 4_000
    web.files["/tables/t.csv"], web.swaps = content, {"/tables/t.csv": content.replace(b"1", b"3")}
    points = source("s3://tables/t.csv")
    web.files["/tables/t.csv"] = content
    assert refused(points) == "s3://tables/t.csv: changed while it was read; run the command again"


def refused(points):
    with pytest.raises(DataError) as caught:
        fingerprint(points)
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_an_object_that_is_cut_off_is_an_error_and_leaves_no_cache(linreg, web, monkeypatch, scheme):
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.address)
    content = b"a,y\n" + b"1,2\n" * 1_000_000
    web.files["/tables/t.csv"] = content
    url = "s3://tables/t.csv" if scheme == "s3" else f"{web.address}/tables/t.csv"
    web.cut = 3_000_000  # more than what shows the columns
    answer = linreg("train", table_spec(url, data__memory="mapped"))
    assert answer.code == 3
    assert answer.err.splitlines()[-1].startswith(f"error: {url}: cannot be read: ")
    assert "Traceback" not in answer.err
    assert entries(cache_folder()) == [] and list(cache_folder().iterdir()) == []
    assert not Path("runs").exists()


S3_GONE = "no such file; check the bucket, the key and AWS_ENDPOINT_URL"
REFUSED = {
    "no key": ("s3://tables/no.csv", {}, f"s3://tables/no.csv: {S3_GONE}"),
    "no bucket": ("s3://nowhere/t.csv", {}, f"s3://nowhere/t.csv: {S3_GONE}"),
    "sqlite": (
        "s3://tables/t.csv", {"name": "sqlite"},
        "s3://tables/t.csv: is a SQLite database, which is not read from a URL; download it, or save it as Parquet",
    ),
    "other content": ("s3://tables/t.parquet", {"name": "csv"}, "s3://tables/t.parquet: is Parquet, not CSV; set name: parquet"),
    "columns": ("s3://tables/t.csv", {"target": "z"}, "data.source: csv: target: s3://tables/t.csv has no column 'z'; known: a, b, y"),
    "cell": (
        "s3://tables/bad.csv", {},
        "s3://tables/bad.csv: row 2, column 'a': 'x' is not a number; fix it, or add it to missing_values if it marks a gap",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_its_url_with_what_to_do(bucket, case):
    bucket("t.csv", CONTENTS["t.csv"])
    bucket("t.parquet", CONTENTS["t.parquet"])
    bucket("bad.csv", b"a,y\n1,2\nx,3\n")
    path, params, expected = REFUSED[case]
    assert refusal(path, **params) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3:///t.csv", "s3:///t.csv: without a bucket; add it"),
        ("https:///t.csv", "https:///t.csv: without a host; add it"),
        ("ftp://h/t.csv", "ftp://h/t.csv: unknown scheme 'ftp'; use one of s3, gs, https, http"),
        ("file:///t.csv", "file:///t.csv: a URL of a local file; write its path"),
        ("S3://tables/a?versionId=1", "s3://tables/a: a query in the URL of an object; remove it"),
    ],
)
def test_a_url_that_is_not_read_is_refused_in_a_spec_and_on_the_command_line(linreg, path, expected):
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    spec = table_spec("t.csv")
    assert linreg("train", spec).code == 0
    place = f"error: override 'data.source.path={remote.without_secrets(path)}': data.source.path"
    assert linreg("check", spec, f"data.source.path={path}").err == f"{place}: {expected}\n"
    assert linreg("predict", "--input", path).err.splitlines()[-1] == f"error: {expected}"


def test_a_denied_object_is_an_error_about_permissions(linreg, bucket, s3):
    bucket("t.csv", CONTENTS["t.csv"])
    send(f"{s3}/moto-api/reset-auth", b"0", "POST")  # from now on every request needs a policy that allows it
    try:
        answer = linreg("train", table_spec("s3://tables/t.csv"))
    finally:
        send(f"{s3}/moto-api/reset-auth", b"inf", "POST")
    assert (answer.code, answer.err) == (
        3,
        "error: s3://tables/t.csv: cannot be read: AWS Error ACCESS_DENIED during HeadObject operation; "
        "check its permissions, and the credentials in the environment\n",
    )


def test_a_wrong_endpoint_is_an_error_about_the_network(linreg, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    answer = linreg("train", table_spec("s3://tables/t.csv"))
    (line,) = answer.err.splitlines()
    assert answer.code == 3
    assert line.startswith("error: s3://tables/t.csv: cannot be read: AWS Error NETWORK_CONNECTION during HeadObject")
    assert line.endswith("; check the network and AWS_ENDPOINT_URL, or try again")


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ({"status": 404}, "no such file; check the URL"),
        (
            {"status": 403},
            "cannot be read: 403 Forbidden; check its permissions, and the credentials in the environment",
        ),
        ({"status": 500}, "cannot be read: 500 Internal Server Error; check the network, or try again"),
        (
            {"ranges": False},
            "cannot be read: the server sends no parts of a file, which this format needs; check the network, or try again",
        ),
    ],
)
def test_the_errors_of_a_web_server_have_one_line(web, behaviour, expected):
    web.files["/t.parquet"] = as_file(parquet.write_table, {"a": np.random.rand(10**5), "y": np.random.rand(10**5)})
    vars(web).update(behaviour)
    assert refusal(f"{web.address}/t.parquet") == f"{web.address}/t.parquet: {expected}"


def test_a_web_server_without_parts_is_enough_for_csv(web):
    web.files["/t.csv"], web.ranges = CONTENTS["t.csv"], False
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    assert fingerprint(source(f"{web.address}/t.csv")) == fingerprint(source("t.csv"))


def test_no_web_server_is_an_error_about_the_network():
    port = free_port()
    text = refusal(f"http://127.0.0.1:{port}/t.csv")
    assert text.startswith(f"http://127.0.0.1:{port}/t.csv: cannot be read: no connection to 127.0.0.1:{port}: ")
    assert text.endswith("; check the network, or try again")


def test_without_aiohttp_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert refusal("https://host/t.csv") == (
        "https: reading from a web server needs aiohttp; pip install 'linreg[remote]', or download the file"
    )


def written():
    """All files of this test, with their content."""
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_no_credential_of_the_environment_is_written(linreg, bucket, monkeypatch):
    bucket("t.csv", CONTENTS["t.csv"])
    spec = table_spec(
        "s3://tables/t.csv", data__memory="mapped", writer={"graph": True, "hparams": True, "plots": True}
    )
    answers = [
        linreg("train", spec), linreg("resume", "checkpoints/small_001/last.pth", "--epochs", "6"), linreg("evaluate"), linreg("inspect", "--json"),
        linreg("predict", "--input", "s3://tables/t.csv", "--output", "p.csv"), linreg("export", "--to", "json"),
        linreg("sweep", spec, "optimizer.lr=0.01,0.1"), linreg("train", spec, "data.source.path=s3://tables/no.csv"),
    ]  # fmt: skip
    assert [answer.code for answer in answers] == [0, 0, 0, 0, 0, 0, 0, 3]
    files = written()
    recorded = {path.name for path, content in files.items() if b"s3://tables/t.csv" in content}
    assert recorded > {"spec.yaml", "last.pth", "meta.json"}  # the search finds what is there
    everything = [*files.values(), *(f"{answer.out}{answer.err}".encode() for answer in answers)]
    for secret in (KEY_ID, SECRET, TOKEN):
        assert not any(secret.encode() in content for content in everything)


@pytest.mark.parametrize("url", [f"s3://{KEY_ID}:{SECRET}@tables/t.csv", f"https://user:{SECRET}@host/t.csv",
                                 f"https://host/t.csv?X-Amz-Signature={SECRET}"])  # fmt: skip
@pytest.mark.parametrize("key", ["data.source.path", "data.split.val"])
def test_a_spec_with_a_secret_in_a_url_is_refused_before_anything_is_written(linreg, url, key):
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    spec = table_spec("t.csv")
    before = written()
    for command in ("check", "train", "sweep", "cv"):
        answer = linreg(command, spec, f"{key}={url}", *["optimizer.lr=0.1,0.2"] * (command == "sweep"))
        assert answer.code == 2
        assert "in a URL" in answer.err and f"{key}: " in answer.err
        assert SECRET not in answer.err + answer.out and KEY_ID not in answer.err + answer.out
    assert written() == before


def test_a_secret_in_a_url_on_the_command_line_is_not_printed(linreg, web):
    web.files["/t.csv"] = CONTENTS["t.csv"]
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    assert linreg("train", table_spec("t.csv")).code == 0
    url, expected = f"{web.address}/t.csv?X-Amz-Signature={SECRET}%2B+a", linreg("predict", "--input", "t.csv").out
    answers = [linreg("predict", "--input", url), linreg("evaluate", "--data", url, "--json")]
    assert [answer.code for answer in answers] == [0, 0]
    assert answers[0].out == expected
    assert any(path == f"/t.csv?X-Amz-Signature={SECRET}%2B+a" for _, path, _ in web.requests)
    del web.files["/t.csv"]
    answers += [linreg("predict", "--input", url), linreg("evaluate", "--data", f"http://u:{SECRET}@h/t.csv")]
    web.status = 403
    answers += [linreg("predict", "--input", url), linreg("init", url, "--target", "y")]
    assert [answer.code for answer in answers[2:]] == [3, 3, 3, 2]
    assert not any(SECRET in answer.out + answer.err for answer in answers)
    assert not any(SECRET.encode() in content for content in written().values())


def test_a_url_that_is_signed_for_get_alone_is_read(web):
    web.files["/t.csv"], web.heads = CONTENTS["t.csv"], False
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    assert fingerprint(source(f"{web.address}/t.csv")) == fingerprint(source("t.csv"))


def test_a_user_and_password_of_a_web_server_come_from_netrc(web, monkeypatch):
    web.files["/t.csv"], web.login = CONTENTS["t.csv"], True
    assert "401 Unauthorized; check its permissions" in refusal(f"{web.address}/t.csv")
    Path("netrc").write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    Path("netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(Path("netrc").absolute()))
    remote.file_system.cache_clear()
    fingerprint(source(f"{web.address}/t.csv"))


@pytest.mark.parametrize(("anonymous", "signed"), [("", True), ("YES", False)])
def test_requests_are_signed_unless_the_environment_says_not_to(web, monkeypatch, anonymous, signed):
    web.files["/tables/t.csv"] = CONTENTS["t.csv"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", web.address)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", anonymous)
    fingerprint(source("s3://tables/t.csv"))
    assert {"authorization" in headers for _, _, headers in web.requests} == {signed}


def test_a_local_table_imports_no_remote_file_system():
    Path("t.csv").write_bytes(CONTENTS["t.csv"])
    code = (
        "import sys; from linreg.data.sources import DATASETS; import linreg.data.tables\n"
        "points = DATASETS.build(DATASETS.check({'name': 'csv', 'path': 't.csv', 'target': 'y'}), where='')\n"
        "assert sum(len(block.x) for block in points.blocks()) == 300\n"
        "sys.exit(str(sorted({'fsspec', 'aiohttp', 'pyarrow.fs'} & set(sys.modules))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stderr == "[]\n"
