"""Objects of an S3 bucket."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from typing import Any

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.decompressors import Source
from resilient_exporters.pipeline.errors import ConfigurationError, UnreadableStreamError
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers.days import check_days, days_of, today
from resilient_exporters.pipeline.readers.file_reader import check_pattern
from resilient_exporters.pipeline.readers.stream import BaseStreamReader

__all__ = ["S3Reader"]

_READ_AHEAD = 4 * 1024 * 1024  # bytes fetched at once: a request each


class S3Reader(BaseStreamReader):
    """Reads the objects of a bucket whose keys begin with one of the prefixes, in the order of prefixes and keys.

    With ``prefix_format_using_date`` each prefix is a format for ``strftime``, and is taken once for each day. Days
    are ``2026-01-31``, ``today``, ``yesterday``, ``3 days ago``, ``2 weeks ago`` and the like; they count from the
    day on which the job began, also when it is resumed later. Without keys the usual places of AWS are looked at.

    Args:
        config, metadata: as of every module.
        **options: ``bucket``, ``aws_access_key_id``, ``aws_secret_access_key``, ``prefix``, ``prefix_pointer``,
            ``pattern``, ``prefix_format_using_date``, ``endpoint_url``, ``aws_region``, ``batch_size``.

    Raises:
        ConfigurationError: both ``prefix`` and ``prefix_pointer``; or no date.
        InvalidDateRangeError: the last day is before the first.
        MissingModuleError: the extra ``s3`` is not installed.
    """

    supported_options = {
        "bucket": Option(type=str, help="Name of the bucket."),
        "aws_access_key_id": Option(
            type=str, default=None, env_fallback="EXPORTERS_S3READER_AWS_KEY", secret=True, help="Of the account."
        ),
        "aws_secret_access_key": Option(
            type=str, default=None, env_fallback="EXPORTERS_S3READER_AWS_SECRET", secret=True, help="Of the account."
        ),
        "prefix": Option(type=(str, ListOf(str)), default="", help="What the keys begin with; one, or a list."),
        "prefix_pointer": Option(
            type=str, default=None, help="Key of an object that lists prefixes, one a line; then no prefix is given."
        ),
        "pattern": Option(
            type=str, default=None, check=check_pattern, help="Regular expression that is searched in the keys."
        ),
        "prefix_format_using_date": Option(
            type=(str, ListOf(str)), default=None, check=check_days,
            help="A day, or [start, end]: prefixes are formats of dates, one for each day.",
        ),
        "endpoint_url": Option(type=str, default=None, help="Of a store other than AWS that speaks S3."),
        "aws_region": Option(type=str, default=None, help="Of the bucket; default: what AWS says."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.read_option("prefix") and self.read_option("prefix_pointer"):
            raise ConfigurationError(None, "prefix and prefix_pointer: give one of them")
        try:
            import s3fs
        except ModuleNotFoundError as error:
            raise MissingModuleError(None, "S3Reader needs: pip install 'resilient-exporters[s3]'") from error
        self._library = s3fs
        self._bucket: str = self.read_option("bucket")
        self._today = today()
        self._prefixes_pointed: list[str] | None = None
        self._opened_store: Any = None

    @property
    def store(self) -> Any:
        """Fsspec's file system; made when it is first asked for."""
        if self._opened_store is None:
            region = self.read_option("aws_region")
            self._opened_store = self._library.S3FileSystem(
                key=self.read_option("aws_access_key_id"),
                secret=self.read_option("aws_secret_access_key"),
                endpoint_url=self.read_option("endpoint_url"),
                client_kwargs={"region_name": region} if region else {},
                use_listings_cache=False,
                skip_instance_cache=True,  # the secret leaves with this reader
            )
        return self._opened_store

    def get_read_streams(self) -> Iterable[str]:
        """The keys."""
        pattern = re.compile(self.read_option("pattern") or "")
        found: dict[str, None] = {}
        for prefix in self._prefixes():
            for key in self._keys(prefix):
                if pattern.search(key) and not key.endswith("/"):  # that is the sign of a folder
                    found[key] = None
        if not found:
            self.logger.warning("no key of bucket %s is asked for", self._bucket)
        return found

    def open_stream(self, stream: str) -> Source:
        """An object."""
        opened: Source = self.store.open(f"{self._bucket}/{stream}", "rb", block_size=_READ_AHEAD)
        return opened

    def _keys(self, prefix: str) -> list[str]:
        try:
            paths: list[str] = self.store.find(self._bucket, prefix=prefix)
        except FileNotFoundError as error:
            raise UnreadableStreamError(None, f"bucket={self._bucket!r}: there is no such bucket ({error})") from error
        return [path.partition("/")[2] for path in sorted(paths)]

    def _prefixes(self) -> Iterator[str]:
        pointer, prefix = self.read_option("prefix_pointer"), self.read_option("prefix")
        if pointer and self._prefixes_pointed is None:
            self._prefixes_pointed = self._pointed(pointer)
        given: Any = self._prefixes_pointed if pointer else prefix
        prefixes = given if isinstance(given, list) else [given]
        dates = self.read_option("prefix_format_using_date")
        if not dates:
            yield from prefixes
            return
        for day in days_of(dates, self._today):
            for one in prefixes:
                yield day.strftime(one)

    def _pointed(self, key: str) -> list[str]:
        try:
            text = self.store.cat_file(f"{self._bucket}/{key}").decode()
        except FileNotFoundError as error:
            where = f"bucket {self._bucket} has no such key"
            raise UnreadableStreamError(None, f"prefix_pointer={key!r}: {where}") from error
        prefixes = [line.strip() for line in text.splitlines() if line.strip()]
        if not prefixes:
            raise UnreadableStreamError(None, f"prefix_pointer={key!r}: it lists no prefix; write one in each line")
        return prefixes

    def get_state(self) -> Any:
        """The day from which days count, and what the pointer named: tomorrow both are something else."""
        if not self.read_option("prefix_format_using_date") and not self.read_option("prefix_pointer"):
            return None
        return {"today": self._today.isoformat(), "pointed": self._prefixes_pointed}

    def set_state(self, state: Any) -> None:
        """Count from this day, and read under these prefixes."""
        self._today = dt.date.fromisoformat(state["today"])
        self._prefixes_pointed = state["pointed"]
