"""Tables on object stores and web servers, opened for reading. `paths` and `formats.files` use it.

Arrow's own file systems read s3:// and gs://: they are part of pyarrow and read outside of Python's lock. fsspec reads
https:// and http://, which arrow does not. Both take credentials from the environment, and retries are theirs.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from linreg.errors import DataError, without_secrets

SCHEMES = ("s3", "gs", "https", "http")
INSTALL = "reading from a web server needs aiohttp; pip install 'linreg[remote]', or download the file"
STREAM_BYTES = 2**23  # of a request for the next part of a stream
CONNECT_SECONDS, READ_SECONDS = 20.0, 60.0  # without an answer of a web server
RETRY_SECONDS = 30.0  # of Google's client, whose default is 15 minutes
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_REFUSED = re.compile(r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|\b40[13]\b|access token")
_LOGIN = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS in the environment",
    "https": "put them into ~/.netrc",
    "http": "put them into ~/.netrc",
}
_ENDPOINT = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}
_GONE = {
    "s3": "check the bucket, the key and AWS_ENDPOINT_URL",
    "gs": "check the bucket and the name",
    "https": "check the URL",
    "http": "check the URL",
}


@dataclass(frozen=True)
class Remote:
    """A table at a URL. As text it has no query, which may be a signature."""

    url: str

    def __str__(self) -> str:
        return without_secrets(self.url)

    @property
    def scheme(self) -> str:
        """The part of the URL before `://`."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(str(self).partition("://")[2]).name

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot."""
        return PurePosixPath(self.name).suffix

    @property
    def key(self) -> str:
        """The bucket and the name of the object, for arrow."""
        return self.url.partition("://")[2]


def place_of(path: str | Path) -> Path | Remote:
    """Return a local path, or the table at a URL. Raises DataError for a URL that is not read."""
    match = _SCHEME.match(str(path)) if isinstance(path, str) else None
    if match is None:
        return Path(path)
    scheme, rest = match[1].lower(), str(path)[match.end() :]
    remote = Remote(f"{scheme}://{rest}")
    if scheme == "file":
        raise DataError(f"{remote}: a URL of a local file; write its path")
    if scheme not in SCHEMES:
        raise DataError(f"{remote}: unknown scheme {scheme!r}; use one of {', '.join(SCHEMES)}")
    if str(remote) != re.split(r"[?#]", remote.url)[0]:
        raise DataError(f"{remote}: a user or password in a URL; remove them, and {_LOGIN[scheme]}")
    if scheme in _ENDPOINT and str(remote) != remote.url:
        raise DataError(f"{remote}: a query in the URL of an object; remove it")
    if not rest.partition("/")[0]:
        raise DataError(f"{remote}: without a {'bucket' if scheme in _ENDPOINT else 'host'}; add it")
    return remote


def recordable(path: str) -> str:
    """Return a path that a run may record. Raises ValueError for a URL with a user, a password or a query."""
    try:
        place = place_of(path)
    except DataError as error:
        raise ValueError(str(error)) from None
    if isinstance(place, Remote) and str(place) != place.url:
        raise ValueError(
            f"{place}: a query in a URL, which may be a signature or token, and a run records its spec; "
            "remove it, or download the file"
        )
    return path


def files_at(remote: Remote, suffixes: tuple[str, ...]) -> list[Remote]:
    """List the object itself, or those directly under a prefix that have a suffix, in order of name. A web server has
    no lists, so a URL of one is a file. Returns an empty list for a prefix without any. Raises DataError."""
    if remote.scheme not in _ENDPOINT:
        return [remote]
    from pyarrow import fs

    key = remote.key.rstrip("/")
    with errors_of(remote):
        info = file_system(remote.scheme).get_file_info(remote.key if remote.key == key else f"{key}/")
        if info.type == fs.FileType.File:
            return [remote]
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError
        inside = file_system(remote.scheme).get_file_info(fs.FileSelector(key))
    names = sorted(info.path for info in inside if info.type == fs.FileType.File)
    found = [Remote(f"{remote.scheme}://{name}") for name in names]
    return [file for file in found if file.name.lower().endswith(suffixes) and not file.name.startswith(".")]


def identity(remote: Remote) -> list[str | int] | None:
    """Return the URL, the size in bytes and the ETag, or another mark of the version. Returns None if a web server
    sends neither an ETag nor a time. Raises DataError."""
    size, tag = _size_and_tag(remote)
    return None if tag is None else [str(remote), size or 0, tag]


def size_of(remote: Remote) -> int | None:
    """Return the size in bytes, or None if a web server does not send it. Raises DataError."""
    return _size_and_tag(remote)[0]


def head_of(remote: Remote, n_bytes: int) -> bytes:
    """Read the first bytes. Raises DataError."""
    with errors_of(remote):
        if remote.scheme in _ENDPOINT:
            with file_system(remote.scheme).open_input_file(remote.key) as file:
                return bytes(file.read_at(n_bytes, 0))
        with _opened(remote, cache_type="none") as file:
            return io.BufferedReader(file, n_bytes).read(n_bytes)


def open_stream(remote: Remote, buffer_bytes: int = STREAM_BYTES) -> Any:
    """Open an arrow stream from the beginning, read in parts of some bytes. Raises DataError."""
    import pyarrow as pa

    with errors_of(remote):
        if remote.scheme in _ENDPOINT:
            options: dict[str, Any] = {"compression": None, "buffer_size": buffer_bytes}
            return file_system(remote.scheme).open_input_stream(remote.key, **options)
        return pa.PythonFile(io.BufferedReader(_opened(remote, block_size=0), buffer_bytes), "r")


def open_anywhere(remote: Remote) -> Any:
    """Open an arrow file in which any part can be read without those before it. Raises DataError."""
    import pyarrow as pa

    with errors_of(remote):
        if remote.scheme in _ENDPOINT:
            return file_system(remote.scheme).open_input_file(remote.key)
        return pa.PythonFile(_opened(remote, cache_type="none"), "r")


@contextmanager
def errors_of(remote: Remote) -> Iterator[None]:
    """Raise an error of a file system as a DataError."""
    try:
        yield
    except OSError as error:
        raise unreadable(remote, error) from None


def unreadable(remote: Remote, error: OSError) -> DataError:
    """Make the error for a table that cannot be read: the URL, the reason and a hint."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{remote}: no such file; {_GONE[remote.scheme]}")
    reason = _reason(error)
    if _REFUSED.search(reason):
        hint = "check its permissions, and the credentials in the environment"
    elif "HTTP status 301" in reason:
        hint = "set AWS_REGION to the region of the bucket"
    else:
        endpoint = _ENDPOINT.get(remote.scheme)
        hint = f"check the network{f' and {endpoint}' if endpoint else ''}, or try again"
    return DataError(f"{remote}: cannot be read: {reason}; {hint}")


def _reason(error: OSError) -> str:
    """Return what a file system reports, in one line, without the names that the URL has already."""
    text = error.strerror or str(error)
    if match := re.search(r"gcloud-cpp\.retry\.original-message=(.*?)(?:, gcloud-cpp|\}|$)", text):
        text = match[1]
    elif match := re.search(r"AWS Error .*", text):
        text = match[0].removesuffix(": No response body.")
    return " ".join(text.split()).rstrip(".").replace("; ", ", ")[:300]


@cache  # its connections and credentials serve every file
def file_system(scheme: str) -> Any:
    """Return the file system of a scheme, with the credentials and the endpoint of the environment."""
    if scheme in ("https", "http"):
        return _web()
    from pyarrow import fs

    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return fs.S3FileSystem(anonymous=_is_anonymous("AWS"), endpoint_override=endpoint)
    emulator, place = urlsplit(os.environ.get("STORAGE_EMULATOR_HOST", "")), {}
    if emulator.netloc:
        place = {"scheme": emulator.scheme, "endpoint_override": emulator.netloc}
    anonymous = bool(place) or _is_anonymous("GS")
    return fs.GcsFileSystem(anonymous=anonymous, retry_time_limit=timedelta(seconds=RETRY_SECONDS), **place)


def _is_anonymous(prefix: str) -> bool:
    return os.environ.get(f"{prefix}_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true")


def _web() -> Any:
    """Return fsspec's file system of web servers. Raises DataError if a package is missing."""
    try:
        import aiohttp
        import fsspec
    except ImportError:
        raise DataError(f"https: {INSTALL}") from None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    client = {"timeout": timeout, "trust_env": True}  # proxies and ~/.netrc
    return fsspec.filesystem("http", client_kwargs=client, encoded=True, skip_instance_cache=True)


def _size_and_tag(remote: Remote) -> tuple[int | None, str | None]:
    """Return the size and what changes with the content, each None if it is not known."""
    with errors_of(remote):
        if remote.scheme in _ENDPOINT:
            with file_system(remote.scheme).open_input_stream(remote.key) as stream:
                found = {key.lower(): value.decode() for key, value in stream.metadata().items()}
        else:
            web = file_system(remote.scheme)
            with _web_errors():
                found = {key.lower(): value for key, value in web.info(_sent(remote)).items()}
    size = found.get("content-length") or found.get("size")
    tag = found.get("generation") or found.get("etag") or found.get("last-modified")
    return None if size is None else int(size), tag


def _opened(remote: Remote, **options: Any) -> "_WebFile":
    """Open a file of a web server. Raises OSError."""
    web = file_system(remote.scheme)
    with _web_errors():
        return _WebFile(web.open(_sent(remote), **options))


def _sent(remote: Remote) -> str:
    """Return the URL with the characters encoded that cannot be sent. A signature holds for the others as they are."""
    return quote(remote.url, safe="%/:=&?~#+!$,;'@()*[]")


class _WebFile(io.RawIOBase):
    """A file of fsspec, whose errors are OSErrors without the URL."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _web_errors():
            chunk = self.file.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _web_errors():
            return int(self.file.seek(offset, whence) or 0)

    def tell(self) -> int:
        return int(self.file.tell())

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


@contextmanager
def _web_errors() -> Iterator[None]:
    """Raise the errors of fsspec and aiohttp as OSErrors, whose texts have no URL."""
    import aiohttp

    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        cause = error.__cause__ or error  # fsspec raises FileNotFoundError for every error of the first request
        match cause:
            case aiohttp.ClientResponseError(status=404):
                raise FileNotFoundError from None
            case aiohttp.ClientResponseError():
                raise OSError(f"{cause.status} {cause.message}") from None
            case aiohttp.ClientPayloadError():
                raise OSError("the connection ended in the middle of the file") from None
            case aiohttp.ClientConnectorError():
                raise OSError(f"no connection to {cause.host}:{cause.port}: {cause.os_error}") from None
            case FileNotFoundError():
                raise FileNotFoundError from None
            case TimeoutError():
                raise OSError("no answer in time") from None
        raise OSError(type(cause).__name__) from None
    except ValueError:  # of fsspec, for a part that is not at the beginning
        raise OSError("the server sends no parts of a file, which this format needs") from None
