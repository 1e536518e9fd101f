"""The exporter for MongoDB, on pymongo."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from resilient_exporters.delivery.outcome import Batch, Delivered, Outcome, Record, Reject, Split
from resilient_exporters.errors import (
    ConnectionError,
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
    from resilient_exporters.exporters.mongodb_documents import Document
    from resilient_exporters.exporters.parsed_url import ParsedURL

__all__ = ["MongoDBExporter"]

_MARGIN = 0.05
"""Part of the time-out that is left for us after the last answer of the server: at most a second."""


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
        id: Literal["record", "objectid", "server"] | Callable[[Record], Any] = "record",
        on_duplicate: Literal["reject", "ignore", "replace"] = "reject",
        timeout: float | timedelta = 30.0,
        **options: Any,
    ) -> None:
        try:
            from resilient_exporters.exporters.mongodb_client import ClientFactory
            from resilient_exporters.exporters.mongodb_documents import DocumentMaker
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        if not callable(id):
            parse_choice(id, "id", ("record", "objectid", "server"))
        self._on_duplicate = parse_choice(on_duplicate, "on_duplicate", ("reject", "ignore", "replace"))
        for name, value in (("default_db", default_db), ("default_collection", default_collection)):
            if value is not None and (not isinstance(value, str) or not value):
                raise InvalidConfigError(None, f"{name}={value!r}: must be a name, or None")
        patience = parse_seconds(wtimeout, "wtimeout", none_ok=True)
        try:
            self._clients = ClientFactory(target_ip, target_port, uri, parse_seconds(timeout, "timeout") or 0.0, {
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
        self._documents = DocumentMaker(id)
        self._client: MongoClient[Any] | None = None
        self._owner = 0
        self._reader: MongoClient[Any] | None = None
        if options.get("concurrency") is None and on_duplicate == "replace":
            options["concurrency"] = 1
        super().__init__(timeout=timeout, **options)
        # Looking at each record costs a part of `send`, and there is nothing to see where both names are known.
        self._checks = self._db is None or self._collection is None

    @classmethod
    def from_url(cls, parsed: ParsedURL, options: dict[str, Any]) -> MongoDBExporter:
        """Make one from ``mongodb://user:password@host:port/database/collection?…``.

        The query takes our options by their names, and those of a connection string by theirs (``replicaSet``).
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

    def check(self, data: Any, options: Mapping[str, Any]) -> None:
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
        """Make a client. It connects with the first command."""
        self.disconnect()
        try:
            self._client = self._clients.make()
        except Exception as error:
            raise self._told(error) from error
        self._owner = os.getpid()

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
        for place, group in enumerate(groups):
            try:
                with self._limit(batch.deadline):
                    self._write(client[group.db][group.collection], group, answers, redelivered=batch.redelivered)
            except Exception as error:  # noqa: BLE001 - told by the table of errors
                told = self._alive_or_not(client, self._told(error), error, batch.deadline)
                if len(groups) == 1 and len(group.members) == len(batch):
                    if isinstance(told, RejectedError) and self._judge(error) == "split" and len(batch) > 1:
                        return Split(str(told))
                    raise told from error
                if isinstance(told, RejectedError) and len(group.members) > 1:
                    told = Split(str(told))  # the command is refused for one of them: find out which
                passing = isinstance(told, (ConnectionError, TimeoutError)) or self._judge(error) == "retry"
                for other in groups[place:] if passing else [group]:
                    for member in other.members:
                        answers[member] = told
                if passing:
                    break
        return answers

    def _groups(self, batch: Batch, answers: list[Any]) -> list[_Group]:
        """The documents of a batch by database and collection. Records that cannot be documents are answered here."""
        groups: dict[tuple[str, str], _Group] = {}
        usual = None if self._checks else _Group(str(self._db), str(self._collection), [], [])
        make = self._documents.make
        for place, record in enumerate(batch):
            options = record.options
            try:
                if not options and usual is not None:
                    group = usual
                else:
                    if (missing := self._missing(options)) is not None:
                        raise DataTypeError(None, missing)
                    names = (str(options.get("db") or self._db), str(options.get("collection") or self._collection))
                    group = groups.setdefault(names, _Group(*names, [], []))
                document = make(record)
            except DataTypeError as error:
                answers[place] = Reject(str(error))
                continue
            group.members.append(place)
            group.documents.append(document)
        found = [usual, *groups.values()] if usual is not None else list(groups.values())
        return [group for group in found if group.members]

    def _write(self, collection: Collection[Any], group: _Group, answers: list[Any], *, redelivered: bool) -> None:
        """Write the documents of one collection and answer for each."""
        from pymongo.errors import BulkWriteError

        for part in self._rounds(group):
            raised: BulkWriteError | None = None
            try:
                if self._on_duplicate == "replace":
                    collection.bulk_write([self._operation(document) for document in part.documents], ordered=False)
                else:
                    collection.insert_many([document.raw for document in part.documents], ordered=False)
            except BulkWriteError as error:
                raised = error
            for place, document in zip(part.members, part.documents, strict=True):
                answers[place] = Delivered(document.id)
            if raised is not None:
                self._sort_out(collection, part, raised.details or {}, answers, redelivered=redelivered)
                if any(not isinstance(answers[place], Delivered | Reject) for place in part.members):
                    # What comes after one that is still to be written must not be there before it.
                    for place in set(group.members) - {place for place in group.members if answers[place] is not None}:
                        answers[place] = ExportError(self, "an earlier record with this _id is not written yet")
                    return

    def _rounds(self, group: _Group) -> Iterator[_Group]:
        """With "replace", documents with the same ``_id`` are written one after the other; else all at once."""
        if self._on_duplicate != "replace":
            yield group
            return
        counts: dict[Any, int] = {}
        rounds: list[_Group] = []
        for place, document in zip(group.members, group.documents, strict=True):
            mark = document.id if isinstance(document.id, str | int) else repr(document.id)
            at = counts[mark] = counts.get(mark, -1) + 1
            if at == len(rounds):
                rounds.append(_Group(group.db, group.collection, [], []))
            rounds[at].members.append(place)
            rounds[at].documents.append(document)
        yield from rounds

    @staticmethod
    def _operation(document: Document) -> Any:
        from pymongo import InsertOne, ReplaceOne

        return InsertOne(document.raw) if document.own else ReplaceOne({"_id": document.id}, document.raw, upsert=True)

    def _sort_out(
        self, collection: Collection[Any], group: _Group, details: Mapping[str, Any], answers: list[Any], *, redelivered: bool
    ) -> None:
        """Answer for the documents of a bulk that was not taken as a whole."""
        from resilient_exporters.exporters.mongodb_errors import judge_document, outcome_error, reason

        if concerns := details.get("writeConcernErrors"):
            # They are written, but not as safely as was asked for: sent again, they are duplicates, and waited for.
            problem = ExportError(self, f"write concern: {reason(concerns[-1])}")
            waits = outcome_error(_Coded(str(problem), concerns[-1].get("code")), judge_document(concerns[-1]), self.address())
            for place in group.members:
                answers[place] = waits
        doubted: list[tuple[int, Mapping[str, Any]]] = []
        for error in details.get("writeErrors", ()):
            at: int = error["index"]
            verdict = judge_document(error)
            if verdict == "duplicate":
                doubted.append((at, error))
            elif verdict in ("reject", "split"):
                answers[group.members[at]] = Reject(reason(error))
            else:
                told = outcome_error(_Coded(reason(error), error.get("code")), verdict, self.address())
                answers[group.members[at]] = told
        if doubted:
            self._duplicates(collection, group, doubted, answers, redelivered=redelivered, safe=not concerns)

    def _duplicates(
        self,
        collection: Collection[Any],
        group: _Group,
        doubted: Sequence[tuple[int, Mapping[str, Any]]],
        answers: list[Any],
        *,
        redelivered: bool,
        safe: bool,
    ) -> None:
        """Answer for documents of which the server says that their key is there already."""
        from resilient_exporters.exporters.mongodb_errors import on_id, reason

        stored: Mapping[Any, bytes] | None = None
        for at, error in doubted:
            document, place, same = group.documents[at], group.members[at], on_id(error)
            there = document.own and same is True
            if not there and (redelivered or same is None):
                # It may be this very record, whose answer was lost; the key that the server names may be another one.
                if stored is None:
                    stored = _stored(collection, [group.documents[each].id for each, _ in doubted])
                found = stored.get(_mark(document.id))
                there = found is not None and (document.own or (redelivered and found == document.raw.raw))
                same = found is not None if same is None else same
            if there or (same and self._on_duplicate == "ignore"):
                if safe:
                    answers[place] = Delivered(document.id)
            elif same and self._on_duplicate == "replace" and not document.own:
                answers[place] = ConnectionError(self, f"another writer was there first: {reason(error)}")
            else:
                answers[place] = Reject(reason(error))

    # -- errors --------------------------------------------------------------------------------------------------

    def _limit(self, deadline: float) -> contextlib.AbstractContextManager[None]:
        """Let all calls inside end before the attempt does."""
        import pymongo

        if not self.timeout or self._clients.write_timeout:
            return contextlib.nullcontext()
        left = min(deadline - time.monotonic(), self.timeout)
        left -= min(1.0, self.timeout * _MARGIN)
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

    def _judge(self, error: Exception) -> str:
        from resilient_exporters.exporters.mongodb_errors import judge

        verdict = judge(error)
        if verdict == "hold" and self._clients.srv and type(error).__name__ == "ConfigurationError":
            return "retry"  # DNS that does not answer is told like this
        return verdict

    def _told(self, error: Exception) -> Exception:
        from resilient_exporters.exporters.mongodb_errors import outcome_error

        return outcome_error(error, self._judge(error), self.address())  # type: ignore[arg-type] # a Verdict

    def _missing(self, options: Mapping[str, Any]) -> str | None:
        for name, default in (("db", self._db), ("collection", self._collection)):
            value = options.get(name)
            if value is None and default is None:
                return f"no {name}: give default_{name}, or send(…, {name}=…)"
            if value is not None and (not isinstance(value, str) or not value):
                return f"{name}={value!r}: must be a name"
        return None


class _Group(NamedTuple):
    """Documents of one collection, with their places in the batch."""

    db: str
    collection: str
    members: list[int]
    documents: list[Document]


class _Coded(Exception):
    """A part of an answer that stands for an exception."""

    def __init__(self, text: str, code: object) -> None:
        super().__init__(text)
        self.code = code


def _stored(collection: Collection[Any], ids: Sequence[Any]) -> dict[Any, bytes]:
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument

    raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
    found = collection.with_options(codec_options=raw).find({"_id": {"$in": list(ids)}})
    return {_mark(document["_id"]): bytes(document.raw) for document in found}


def _mark(identity: Any) -> Any:
    """An ``_id`` as a key of a dict; 1 and 1.0 are one ``_id`` to MongoDB too."""
    try:
        hash(identity)
    except TypeError:
        return repr(identity)
    return identity


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _missing(error: ModuleNotFoundError) -> MissingModuleError:
    return MissingModuleError(
        None, f"MongoDBExporter needs {error.name}: pip install 'resilient-exporters[mongodb]'"
    )
