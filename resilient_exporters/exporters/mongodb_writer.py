"""Documents into one collection, and an answer for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, ReplaceOne
from pymongo.errors import BulkWriteError

from resilient_exporters.delivery.outcome import Delivered, Reject
from resilient_exporters.errors import DataTypeError, RetryableError
from resilient_exporters.exporters.mongodb_documents import HARMLESS, UNENCODABLE, Document, fit
from resilient_exporters.exporters.mongodb_errors import judge_document, on_id, outcome_error, reason

if TYPE_CHECKING:
    from pymongo.collection import Collection

__all__ = ["Group", "Writer"]


class Group(NamedTuple):
    """Documents of one collection.

    Attributes:
        db: name of its database.
        collection: its name.
        members: places of the records in the batch.
        documents: made from them.
    """

    db: str
    collection: str
    members: list[int]
    documents: list[Document]


class Writer:
    """Writes groups.

    Args:
        on_duplicate: "reject", "ignore" or "replace", for ids that are not ours.
        where: the target without secrets, for errors.
    """

    def __init__(self, on_duplicate: str, where: str) -> None:
        self._on_duplicate = on_duplicate
        self._where = where

    def write(
        self, collection: Collection[Any], group: Group, answers: list[Any], *, redelivered: bool, size: float
    ) -> None:
        """Write the documents of a group with one command.

        Args:
            collection: where to.
            group: the documents.
            answers: of the whole batch; those of the members are set, to an outcome or an error of this package.
            redelivered: documents may be there already, by ourselves.
            size: bytes that the documents come from, at most.

        Raises:
            Exception: whatever pymongo raises when there is no answer for each document.
        """
        for given in self._rounds(group):
            part, again = given, redelivered
            try:
                if size > HARMLESS and not fit(part.documents, collection.codec_options):
                    part = _encoded(collection, part, answers)
                details = self._bulk(collection, part)
            except UNENCODABLE:
                # One by one they say which it is. pymongo sends the first ones of very many before it sees the others.
                part, again = _encoded(collection, given, answers), True
                details = self._bulk(collection, part)
            for place, document in zip(part.members, part.documents, strict=True):
                answers[place] = Delivered(document.id)
            if not details:
                continue
            self._sort_out(collection, part, details, answers, redelivered=again)
            if any(not isinstance(answers[place], (Delivered, Reject)) for place in part.members):
                # What follows one that is still to be written must not be there before it.
                for place in group.members:
                    if answers[place] is None:
                        answers[place] = RetryableError("waits for an earlier record with the same _id")
                return

    def _bulk(self, collection: Collection[Any], group: Group) -> Mapping[str, Any]:
        """What went wrong with single documents; nothing if nothing did."""
        if not group.members:
            return {}
        try:
            if self._on_duplicate == "replace":
                collection.bulk_write([_operation(document) for document in group.documents], ordered=False)
            else:
                collection.insert_many([document.body for document in group.documents], ordered=False)
        except BulkWriteError as error:
            if not error.details:
                raise
            return error.details
        return {}

    def _rounds(self, group: Group) -> Iterator[Group]:
        """With "replace", documents with the same ``_id`` are written one after the other; else all at once."""
        if self._on_duplicate != "replace":
            yield group
            return
        counts: dict[Any, int] = {}
        rounds: list[Group] = []
        for place, document in zip(group.members, group.documents, strict=True):
            mark = _mark(document.id)
            at = counts[mark] = counts.get(mark, -1) + 1
            if at == len(rounds):
                rounds.append(Group(group.db, group.collection, [], []))
            rounds[at].members.append(place)
            rounds[at].documents.append(document)
        yield from rounds

    def _sort_out(
        self,
        collection: Collection[Any],
        group: Group,
        details: Mapping[str, Any],
        answers: list[Any],
        *,
        redelivered: bool,
    ) -> None:
        concerns = details.get("writeConcernErrors") or ()
        if concerns:
            # All are written, but not as safely as was asked for. Sent again they are duplicates, which the server
            # answers only when they are.
            waits = self._told(concerns[-1], unknown="retry")
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
                answers[group.members[at]] = self._told(error, unknown="unclear")
        if not doubted:
            return
        refused = self._refused(collection, group, doubted, redelivered=redelivered)
        for at, _ in doubted:
            if at in refused:
                answers[group.members[at]] = refused[at]
            elif not concerns:
                answers[group.members[at]] = Delivered(group.documents[at].id)

    def _refused(
        self,
        collection: Collection[Any],
        group: Group,
        doubted: Sequence[tuple[int, Mapping[str, Any]]],
        *,
        redelivered: bool,
    ) -> dict[int, Any]:
        """Of documents of which the server says that their key is there: those of which this is bad news."""
        refused: dict[int, Any] = {}
        stored: Mapping[Any, bytes] | None = None
        for at, error in doubted:
            document, by_id = group.documents[at], on_id(error)
            if document.own and by_id:
                continue
            if redelivered or by_id is None:
                # It may be this very record, whose answer was lost; then the key that is named may be another one.
                if stored is None:
                    stored = _stored(collection, [group.documents[each].id for each, _ in doubted])
                found = stored.get(_mark(document.id))
                if found is not None and (
                    document.own or (redelivered and found == document.raw(collection.codec_options))
                ):
                    continue
                by_id = found is not None if by_id is None else by_id
            if by_id and self._on_duplicate == "ignore":
                continue
            if by_id and self._on_duplicate == "replace" and not document.own:
                refused[at] = RetryableError(f"{self._where}: another writer was there first: {reason(error)}")
            else:
                refused[at] = Reject(reason(error))
        return refused

    def _told(self, error: Mapping[str, Any], *, unknown: str) -> Exception:
        verdict = judge_document(error)
        if verdict not in ("retry", "hold"):
            verdict = "retry" if unknown == "retry" else "unclear"
        return outcome_error(_Answer(error), verdict, self._where)


class _Answer(Exception):
    """A part of an answer in the place of an exception."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("errmsg", "")))
        self.code = error.get("code")


def _operation(document: Document) -> Any:
    if document.own:
        return InsertOne(document.body)
    return ReplaceOne({"_id": document.id}, document.body, upsert=True)


def _encoded(collection: Collection[Any], group: Group, answers: list[Any]) -> Group:
    """The documents that can be encoded, encoded; the others are answered."""
    fit = Group(group.db, group.collection, [], [])
    for place, document in zip(group.members, group.documents, strict=True):
        try:
            fit.documents.append(document.encoded(collection.codec_options))
        except DataTypeError as error:
            answers[place] = Reject(str(error))
        else:
            fit.members.append(place)
    return fit


def _stored(collection: Collection[Any], ids: Sequence[Any]) -> dict[Any, bytes]:
    raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
    found = collection.with_options(codec_options=raw).find({"_id": {"$in": list(ids)}})
    return {_mark(document["_id"]): bytes(document.raw) for document in found}


def _mark(identity: Any) -> Any:
    """An ``_id`` as a key of a dict."""
    try:
        hash(identity)
    except TypeError:
        return repr(identity)
    return identity
