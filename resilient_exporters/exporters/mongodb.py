"""The exporter for MongoDB, on pymongo."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from resilient_exporters.delivery.outcome import Batch, Outcome, Record, Reject, Split
from resilient_exporters.errors import (
    DataTypeError,
    ExportError,
    InvalidConfigError,
    MissingConfigError,
    MissingModuleError,
    RejectedError,
    TimeoutError,
)
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporters.parsed_url import arguments, parameters
from resilient_exporters.units import parse_choice, parse_seconds

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection
    from pymongo.database import Database

    from resilient_exporters.delivery.stats import CloseReport
    from resilient_exporters.exporters.mongodb_errors import Verdict
    from resilient_exporters.exporters.mongodb_writer import Group
    from resilient_exporters.exporters.parsed_url import ParsedURL

__all__ = ["MongoDBExporter"]

_MARGIN = 0.25
"""Part of the time-out that is left after the last answer of the server, at most a second: pymongo looks for a server
in steps of half a second, and may be that late."""


class MongoDBExporter(Exporter):
    """Documents in MongoDB: a mapping is one document, each there once however often it is sent.

    A batch is one unordered ``insert_many`` for each collection that its records name. ``_id`` is the record's id
    unless the record brings its own, so that a document sent again after a lost answer, a time-out or a restart is
    found to be there. A document that the server refuses becomes a dead letter with the server's reason, and the
    others of its batch are written. docs/exporters/mongodb.md has the tables of types and of errors.

    Args:
        target_ip: host name or address of the server, "host:port", or a list of these for a replica set.
        target_port: port of hosts without one.
        username, password: the account, as they are: nothing has to be percent-encoded.
        default_db: database for records without an option ``db`` of their own; else the one that ``uri`` names.
        default_collection: collection for records without an option ``collection``.
        uri: MongoDB connection string instead of ``target_ip``, with whatever options it takes.
        auth_source: database in which the account is defined. Default: pymongo's, "admin".
        auth_mechanism: such as "SCRAM-SHA-256", "MONGODB-X509". Default: agreed upon with the server.
        replica_set: its name.
        tls: whether to speak TLS. None: as ``uri`` says, else no.
        tls_ca_file: path of the certificates to trust, PEM. None: the system's. Read when connecting.
        tls_certificate_key_file: path of our own certificate and key, PEM. Read when connecting.
        tls_certificate_key_file_password: of that key.
        tls_allow_invalid_certificates: True trusts anyone.
        w: write concern: number of nodes that have a document before it counts as delivered (from 1 on), "majority",
            or a tag. None: the deployment's own, which is "majority" since MongoDB 5.0.
        journal: whether it must be in the journal on disk.
        wtimeout: seconds that the server waits for the other nodes. Default: as long as the attempt may take.
        compressors: such as "zstd,zlib": for thin links. Needs what pymongo needs for them.
        client_options: further options of ``pymongo.MongoClient``, by its names.
        id: what ``_id`` is where the record has none: "record" (text, the record's id), "objectid" (an ObjectId made
            from it), "server" (a fresh ObjectId at each attempt: a resend may make a second document), or a function
            of the record (``.id .data .options``) that returns it.
        on_duplicate: if a document with the ``_id`` of the record's own making is there, and is not this very record:
            "reject" (dead letter), "ignore" (the one that is there stays) or "replace".
        **options: those of `Exporter`. ``concurrency`` is 1 with ``on_duplicate="replace"`` (the later must win),
            else "auto".

    Record options (``send(data, **options)``): ``db``, ``collection``.

    Raises:
        MissingModuleError: pymongo is not installed.
        MissingConfigError: neither ``target_ip`` nor ``uri``.
        InvalidConfigError: an option has a value it cannot have.
    """

    kind: ClassVar[str] = "mongodb"
    concurrency: ClassVar[int | str] = "auto"
    record_options: ClassVar[frozenset[str] | None] = frozenset({"db", "collection"})

    def __init__(
        self,
        target_ip: str | Sequence[str] | None = None,
        target_port: int = 27017,
        username: str | None = None,
        password: str | None = None,
        default_db: str | None = None,
        default_collection: str | None = None,
        *,
        uri: str | None = None,
        auth_source: str | None = None,
        auth_mechanism: str | None = None,
        replica_set: str | None = None,
        tls: bool | None = None,
        tls_ca_file: str | os.PathLike[str] | None = None,
        tls_certificate_key_file: str | os.PathLike[str] | None = None,
        tls_certificate_key_file_password: str | None = None,
        tls_allow_invalid_certificates: bool | None = None,
        w: int | str | None = None,
        journal: bool | None = None,
        wtimeout: float | timedelta | None = None,
        compressors: str | None = None,
        client_options: Mapping[str, Any] | None = None,
        id: Literal["record", "objectid", "server"] | Callable[[Record], Any] = "record",  # noqa: A002 - MongoDB's word
        on_duplicate: Literal["reject", "ignore", "replace"] = "reject",
        timeout: float | timedelta = 30.0,
        **options: Any,
    ) -> None:
        try:
            from resilient_exporters.exporters.mongodb_client import ClientFactory
            from resilient_exporters.exporters.mongodb_documents import DocumentMaker
            from resilient_exporters.exporters.mongodb_writer import Writer
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        if not callable(id):
            parse_choice(id, "id", ("record", "objectid", "server"))
        parse_choice(on_duplicate, "on_duplicate", ("reject", "ignore", "replace"))
        flags: dict[str, object] = {"tls": tls, "tls_allow_invalid_certificates": tls_allow_invalid_certificates}
        for name, flag in flags.items():
            if flag is not None and not isinstance(flag, bool):
                raise InvalidConfigError(None, f"{name}={flag!r}: must be True, False or None")
        names: dict[str, object] = {"default_db": default_db, "default_collection": default_collection}
        for name, value in names.items():
            if value is not None and (not isinstance(value, str) or not value):
                raise InvalidConfigError(None, f"{name}={value!r}: must be a name, or None")
        patience = parse_seconds(wtimeout, "wtimeout", none_ok=True)
        try:
            self._clients = ClientFactory(target_ip, target_port, uri, parse_seconds(timeout, "timeout"), {
                "username": username, "password": password, "authSource": auth_source, "authMechanism": auth_mechanism,
                "replicaSet": replica_set, "tls": tls, "tlsCAFile": _path(tls_ca_file),
                "tlsCertificateKeyFile": _path(tls_certificate_key_file),
                "tlsCertificateKeyFilePassword": tls_certificate_key_file_password,
                "tlsAllowInvalidCertificates": tls_allow_invalid_certificates, "w": w, "journal": journal,
                "wTimeoutMS": None if patience is None else int(patience * 1000), "compressors": compressors,
                **(client_options or {}),
            })  # fmt: skip
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        self._db = default_db or self._clients.database
        self._collection = default_collection or self._clients.collection
        self._clients.check_names(self._db, self._collection)
        self._documents = DocumentMaker(id)
        self._client: MongoClient[Any] | None = None
        self._owner = 0
        self._reader: MongoClient[Any] | None = None
        if options.get("concurrency") is None and on_duplicate == "replace":
            options["concurrency"] = 1
        super().__init__(timeout=timeout, **options)
        self._writer = Writer(on_duplicate, self.address())
        # Looking at each record costs a part of `send`, and there is nothing to see where both names are known.
        self.checks = self._db is None or self._collection is None

    @classmethod
    def from_url(cls, parsed: ParsedURL, options: dict[str, Any]) -> MongoDBExporter:
        """Make one from ``mongodb://user:password@host:port/database/collection?…``.

        Also several hosts (``mongodb://a:27017,b:27018/…``) and ``mongodb+srv://``. The query takes our options by
        their names, and those of a connection string by theirs (``replicaSet``).
        """
        from resilient_exporters.exporters.mongodb_client import URI_OPTIONS

        known = parameters(cls)
        theirs = {name for name, _ in parsed.query if name.lower() in URI_OPTIONS and name not in known}
        given, rest = arguments(cls, parsed, options, passed_on=theirs, taken={"uri", "target_ip"})
        scheme, _, place = parsed.with_query(rest).partition("://")
        path, mark, query = place.partition("?")
        hosts, _, names = path.partition("/")
        database, slash, collection = names.strip("/").partition("/")
        return cls(uri=f"{scheme}://{hosts}/{database}{'.' if slash else ''}{collection}{mark}{query}", **given)

    def address(self) -> str:
        """Hosts and ports, and the default database and collection, without account."""
        return f"{self._clients.address}/{self._db or ''}" + (f".{self._collection}" if self._collection else "")

    def check(self, data: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Called for exporters without default database or collection.

        Raises:
            MissingConfigError: the record says neither.
        """
        if (missing := self._missing(options)) is not None:
            raise MissingConfigError(self, missing)

    # -- for the program -----------------------------------------------------------------------------------------

    @property
    def client(self) -> MongoClient[Any]:
        """A ``pymongo.MongoClient`` for the program's own questions, with the same options.

        Made when first asked for, connected when first used, closed by ``close``. Deliveries have one of their own.
        """
        if self._reader is None:
            self._reader = self._clients.make()
            weakref.finalize(self, self._reader.close).atexit = False
        return self._reader

    @property
    def db(self) -> Database[Any] | None:
        """The default database, of `client`; None if there is no default."""
        return None if self._db is None else self.client[self._db]

    @property
    def collection(self) -> Collection[Any] | None:
        """The default collection, of `client`; None if there is no default."""
        db = self.db
        return None if db is None or self._collection is None else db[self._collection]

    def close(self, timeout: float = 5.0) -> CloseReport:
        """As every exporter; `client` is closed too."""
        try:
            return super().close(timeout)
        finally:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    # -- delivering ----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Make a client and ask the server for a sign of life: a wrong address or account is known before any record.

        Raises:
            RetryableError: no answer.
            HoldError: it answers that something has to be mended.
        """
        self.disconnect()
        try:
            self._client = client = self._clients.make()
            self._owner = os.getpid()
            # Under a limit, pymongo looks for a server as long as the limit lets it, whatever its own option says.
            with self._limit(time.monotonic() + client.options.server_selection_timeout, margin=0.0):
                client.admin.command("ping")
        except Exception as error:
            self.disconnect()
            raise self._told(error) from error

    def disconnect(self) -> None:
        """Close the client, with its connections and threads. In a forked child they are the parent's and stay."""
        client, self._client = self._client, None
        if client is not None and self._owner == os.getpid():
            client.close()

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        """Write a batch: one command for each collection. Errors become those of this package."""
        if self._client is None:
            self.connect()
        client = self._client
        assert client is not None  # noqa: S101 - made above
        answers: list[Any] = [None] * len(batch)
        groups = self._groups(batch, answers)
        for at, group in enumerate(groups):
            try:
                with self._limit(batch.deadline):
                    collection = client[group.db][group.collection]
                    self._writer.write(collection, group, answers, redelivered=batch.redelivered, size=batch.size)
            except Exception as error:
                told = self._alive_or_not(client, self._told(error), error, batch.deadline)
                if len(group.members) == len(batch):
                    if self._judge(error) == "split" and len(batch) > 1:
                        return Split(str(told))
                    raise told from error
                if isinstance(told, RejectedError) and len(group.members) > 1:
                    answer: Any = Split(str(told))  # the command is refused for one of them: find out which
                else:
                    answer = told
                passing = self._judge(error) == "retry"
                for other in groups[at:] if passing else [group]:
                    for place in other.members:
                        if answers[place] is None:
                            answers[place] = answer
                if passing:
                    break
        return answers

    def _groups(self, batch: Batch, answers: list[Any]) -> list[Group]:
        """The documents of a batch by database and collection. Records that cannot be documents are answered here."""
        from resilient_exporters.exporters.mongodb_writer import Group

        groups: dict[tuple[Any, Any], Group] = {}
        usual = (self._db, self._collection)
        if not self.checks and not any(record.options for record in batch):
            documents = self._documents.make_all(batch)
            if documents is not None:
                return [Group(str(usual[0]), str(usual[1]), list(range(len(documents))), documents)]
        make = self._documents.make
        for place, record in enumerate(batch):
            names = usual
            try:
                if record.options or self.checks:
                    if (missing := self._missing(record.options)) is not None:
                        raise DataTypeError(None, missing)
                    names = (record.options.get("db") or usual[0], record.options.get("collection") or usual[1])
                document = make(record)
            except DataTypeError as error:
                answers[place] = Reject(str(error))
                continue
            group = groups.get(names)
            if group is None:
                group = groups[names] = Group(str(names[0]), str(names[1]), [], [])
            group.members.append(place)
            group.documents.append(document)
        return list(groups.values())

    # -- errors --------------------------------------------------------------------------------------------------

    def _limit(self, deadline: float, margin: float = _MARGIN) -> contextlib.AbstractContextManager[None]:
        """Let all calls inside end before the attempt does."""
        import pymongo

        if not self.timeout or self._clients.write_timeout:
            return contextlib.nullcontext()
        left = min(deadline - time.monotonic(), self.timeout)
        left -= min(1.0, self.timeout * margin)
        if left <= 0:
            raise TimeoutError(self, f"no time is left of timeout={self.timeout:g} s")
        return pymongo.timeout(left)

    def _alive_or_not(self, client: MongoClient[Any], told: Exception, error: Exception, deadline: float) -> Exception:
        """Tell a server that hangs up on what it is given from one that is away.

        A connection that breaks under a command is an outage as a rule. If the server answers right afterwards, it may
        be the records: then the engine halves the batch, and what was one of many broken connections is one more try.
        """
        from pymongo.errors import AutoReconnect, NetworkTimeout, NotPrimaryError, ServerSelectionTimeoutError

        if not isinstance(error, AutoReconnect):
            return told
        if isinstance(error, NetworkTimeout | NotPrimaryError | ServerSelectionTimeoutError):
            return told
        try:
            with self._limit(deadline):
                client.admin.command("ping")
        except Exception:  # noqa: BLE001 - whatever it is, the first error says more
            return told
        return ExportError(self, f"the connection broke under this batch, while the server is there: {told}")

    def _judge(self, error: Exception) -> Verdict:
        from resilient_exporters.exporters.mongodb_errors import judge

        verdict = judge(error)
        if verdict == "hold" and self._clients.srv and type(error).__name__ == "ConfigurationError":
            return "retry"  # DNS that does not answer is told like this
        return verdict

    def _told(self, error: Exception) -> Exception:
        from resilient_exporters.exporters.mongodb_errors import outcome_error

        return outcome_error(error, self._judge(error), self.address())

    def _missing(self, options: Mapping[str, Any]) -> str | None:
        for name, default in (("db", self._db), ("collection", self._collection)):
            value = options.get(name)
            if value is None and default is None:
                return f"no {name}: give default_{name}, or send(…, {name}=…)"
            if value is not None and (not isinstance(value, str) or not value):
                return f"{name}={value!r}: must be a name"
        return None


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _missing(error: ModuleNotFoundError) -> MissingModuleError:
    return MissingModuleError(None, f"MongoDBExporter needs {error.name}: pip install 'resilient-exporters[mongodb]'")
