"""The exchange between several processes, by torch.distributed. torchrun starts them and describes their group."""

import atexit
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before a group is formed: its default arguments would keep the group's threads

from linreg.errors import GroupError, UsageError
from linreg.system.place import Place
from linreg.training.shards.exchange import Exchange, add_in_order, shards_of
from linreg.training.shards.signs import Signs

SECONDS_A_WAIT = 0.5  # for other processes, at most, until Python can handle a signal
SECONDS_BETWEEN_TRIES = 0.05
LONG = timedelta(days=1000)  # more than a process works


class Formed(NamedTuple):
    """The group of this process. signs: of life; patient: the group that waits long (see `GroupExchange`)."""

    signs: Signs
    patient: dist.ProcessGroup


_formed: list[Formed] = []  # like torch's own groups, it is of the process


class GroupExchange(Exchange):
    """The exchange of a process in a group. Rank 0 adds, and sends the sum to all: every process gets the same bits.

    It has two groups of torch.distributed. That of `total` has the timeout, as each process has the same work for a
    step. All else uses the patient one, because a process may train for hours until it has something to say (see
    `give_sign`)."""

    def __init__(self, place: Place, *, timeout: float) -> None:
        """timeout: seconds that an exchange may take."""
        super().__init__(place.rank, place.size)
        self.wants_stop: Callable[[], bool] = lambda: False
        self.timeout = timedelta(seconds=timeout)
        self.others = f"rank {1 - place.rank}" if place.size == 2 else "another process of the group"

    def form(self, listen: Callable[[], object] = lambda: None) -> None:
        """Form the group, once in the life of a process. Return when all processes have called `listen`, after which
        they let a signal wait for the end of a step. Raises UsageError, GroupError."""
        if dist.is_initialized():
            return
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UsageError(f"the environment lacks {' and '.join(missing)}; start the processes by torchrun")
        deadline = time.monotonic() + self.timeout.total_seconds()
        with _translated(self.others):
            store = self._meet(self._open_store(deadline), deadline)
        signs = Signs(store, self.rank, self.size, self.timeout.total_seconds())
        _formed.append(Formed(signs, self._connect(store)))
        atexit.register(_end)
        listen()
        self.collect(None)

    def lead(self, make_start: Callable[[], Any]) -> None:
        """Form the group, and send all others what they go on with. Raises GroupError."""
        self.form()
        self._share(make_start())

    def follow(self) -> Any:
        """Join the group, and return what the first process sends. Raises GroupError."""
        self.form()
        return self._share(None)

    def wait_for_first(self) -> None:
        """Wait for the end of `closing` in the first process: until then the agent of this machine must not end,
        because it may keep the store in which the agents meet. Raises GroupError."""
        self._share(None)

    def give_sign(self) -> None:
        """Let the others know that this process works: they wait for a process as long as it gives signs. With
        `relay_stop`, exchange who was asked to stop. Raises GroupError."""
        with _translated(self.others):
            _signs().give()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Give signs from a second thread, in the block."""
        is_over, seconds = threading.Event(), _signs().seconds_between

        def give_signs() -> None:
            with suppress(GroupError):  # the block will notice
                while not is_over.wait(seconds):
                    self.give_sign()

        thread = threading.Thread(target=give_signs, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Let the others wait for the end of the block, also an error, after which they end."""
        try:
            with self.at_work():
                yield
        finally:
            with suppress(GroupError):  # they may have ended
                self._share(None)
            if _signs().hears_stop:  # until all have heard it: the store may end with this process
                time.sleep(2 * _signs().seconds_between)

    def agreed(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return the function that says whether to stop, as all processes see it after the same step."""
        self.wants_stop = stop
        return lambda: self.stopped

    def relay_stop(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return the function that says whether any process was asked to stop. It gives signs. Raises GroupError."""
        _signs().asked = stop

        def is_asked() -> bool:
            if stop():
                return self.is_stopping()
            self.give_sign()
            return _signs().hears_stop

        return is_asked

    def is_stopping(self) -> bool:
        """Return whether a process was asked to stop, now."""
        signs = _signs()
        with suppress(GroupError), _translated(self.others):  # the store may have ended with rank 0
            signs.give(at_once=True)
        return signs.hears_stop or (signs.asked is not None and signs.asked())

    def total(self, rows: torch.Tensor, n_shards: int) -> torch.Tensor:
        """Return the sum, as `Exchange` does. One more column has the wish to stop. Raises GroupError."""
        n_own, width = rows.shape
        counts = [len(shards_of(n_shards, rank, self.size)) for rank in range(self.size)]
        sent = torch.zeros(max(counts), width + 1, dtype=rows.dtype, device=rows.device)
        sent[:n_own, :-1] = rows
        sent[0, -1] = float(self.wants_stop())
        total = torch.empty(width + 1, dtype=rows.dtype, device=rows.device)
        if self.rank == 0:
            received = self._receive(sent)
            own_rows = [one[:count] for one, count in zip(received, counts, strict=True)]
            total.copy_(add_in_order(torch.cat(own_rows)))
        with _translated(self.others):
            if self.rank > 0:
                dist.send(sent, dst=0)
            dist.broadcast(total, src=0)
        self.stopped = self.stopped or bool(total[-1] > 0)
        return total[:-1]

    def _open_store(self, deadline: float) -> dist.TCPStore:
        """Open the store in which the processes of a group meet: torchrun's own, or one that rank 0 keeps."""
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        is_keeper = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        while not is_keeper:
            try:
                socket.create_connection((host, port), timeout=SECONDS_A_WAIT).close()
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    problem = f"rank 0 did not answer at {host}:{port} in time ({error})"
                    raise GroupError(f"{problem}; see its message, and run the command again") from None
                time.sleep(SECONDS_BETWEEN_TRIES)
        return dist.TCPStore(host, port, self.size, is_keeper, self.timeout, wait_for_workers=False)

    def _meet(self, store: dist.TCPStore, deadline: float) -> dist.Store:
        """Wait until all processes have opened the store; return the part of it that is theirs alone.

        torchrun's store outlives a restart, and so has what earlier processes wrote: rank 0 names the group anew, each
        process puts a number of its own under that name, and rank 0 confirms the numbers. Raises GroupError with the
        rank of a process that does not come.
        """
        own = name = secrets.token_hex(8)
        if self.rank == 0:
            store.set("linreg/group", name)
        seconds = 0.01
        while True:
            if store.check(["linreg/group"]):
                name = store.get("linreg/group").decode()
                store.set(f"{name}/{self.rank}", own)
            keys = [f"{name}/{rank}" for rank in range(self.size)]
            if self.rank == 0 and store.check(keys):
                store.set(f"{name}/all", b" ".join(store.get(key) for key in keys))
            if store.check([f"{name}/all"]) and store.get(f"{name}/all").decode().split()[self.rank] == own:
                store.set_timeout(self.timeout)
                return dist.PrefixStore(name, store)
            if time.monotonic() > deadline:
                rank = next((rank for rank, key in enumerate(keys) if not store.check([key])), 0)
                raise GroupError(f"rank {rank} did not start in time; see its message, and run the command again")
            time.sleep(seconds)
            seconds = min(2 * seconds, SECONDS_A_WAIT)

    def _connect(self, store: dist.Store) -> dist.ProcessGroup:
        """Connect the processes; return the patient group. Raises GroupError, also where one ends or hangs: gloo would
        wait for ever."""

        def connect() -> Any:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            group = {"rank": self.rank, "world_size": self.size, "timeout": self.timeout}
            with _translated(self.others):
                dist.init_process_group(backend, store=store, **group)
                return dist.new_group(backend="gloo", timeout=LONG)

        try:
            patient: dist.ProcessGroup = _started(connect).result(self.timeout.total_seconds())
        except TimeoutError:
            problem = f"{self.others} did not connect in time"
            raise GroupError(f"{problem}; see its message, and run the command again") from None
        return patient

    def _patiently(self, exchange: Callable[[], None]) -> None:
        """Call a function that exchanges by the patient group, which may take as long as all processes give signs.
        Raises GroupError if one ends, or gives no sign for as long as the timeout."""

        def call() -> None:
            with _translated(self.others):
                exchange()

        signs, done = _signs(), _started(call)
        silent = signs.watch()
        try:
            while True:
                try:
                    done.result(SECONDS_A_WAIT)
                    return
                except TimeoutError:
                    self.give_sign()
                if signs.hears_stop:
                    raise GroupError(f"{self.others} was asked to stop; resume the run")
                with _translated(self.others):
                    rank = silent()
                if rank is not None:
                    raise GroupError(f"rank {rank} did not answer in time; see its message, and resume the run")
        finally:
            if not done.done():  # a thread of gloo that waits when Python ends would abort the process
                _formed[0].patient.abort()

    def _receive(self, own: torch.Tensor) -> list[torch.Tensor]:
        """Receive a tensor from each other process, of the shape of that of rank 0; return all in the order of the
        ranks. Raises GroupError with the rank of a process that sends none."""
        received = [own, *(torch.empty_like(own) for _ in range(1, self.size))]
        with _translated(self.others):
            works = [dist.irecv(received[rank], src=rank) for rank in range(1, self.size)]
        for rank, work in enumerate(works, start=1):
            with _translated(f"rank {rank}"):
                work.wait()
        return received

    def _share(self, value: Any) -> Any:
        """Send a value of rank 0 to all; return it."""
        values = [value]
        self._patiently(lambda: dist.broadcast_object_list(values, src=0, group=_formed[0].patient))
        return values[0]

    def collect(self, value: Any) -> list[Any]:
        """Send a value of every process to rank 0; return them there in the order of the ranks, elsewhere nothing.
        Raises GroupError."""
        self.form()
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        self._patiently(lambda: dist.gather_object(value, found, dst=0, group=_formed[0].patient))
        return found or []

    def all_of(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of the ranks, in each. Raises GroupError."""
        values: list[Any] = self._share(self.collect(value))
        return values


def _signs() -> Signs:
    return _formed[0].signs


def _end() -> None:
    """End all groups, and their threads: one that runs when Python ends would abort the process."""
    _formed.clear()
    dist.destroy_process_group()


def _started(call: Callable[[], Any]) -> "Future[Any]":
    """Call a function in a thread that does not keep the process from ending. Return what it will return or raise."""
    future = Future[Any]()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # the waiting thread raises it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def _translated(who: str) -> Iterator[None]:
    """Raise the errors of torch.distributed as GroupError. who: the process that is waited for."""
    try:
        yield
    except (RuntimeError, ValueError, dist.DistError) as error:
        text = str(error).partition("\n")[0]
        is_late = "imed out" in text or "imeout" in text
        problem = f"{who} did not answer in time" if is_late else f"{who} has ended"
        raise GroupError(f"{problem}; see its message, and resume the run ({text[:150]})") from None
