"""BigraysConfig: what resources need to know, from assignments and the environment."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from resilient_exporters.tasks.errors import ConfigurationError

__all__ = ["BigRaysConfig", "BigraysConfig", "environment_name", "flag", "setting"]

PREFIX: Final = "BIGRAYS_"

#: Names of the two generations for the same thing.
_PAIRS: Final = (
    ("S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
    ("S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    ("DB_USER", "ODBC_UID"),
    ("DB_PWD", "ODBC_PWD"),
    ("DB_DSN", "ODBC_DSN"),
)
_OTHER: Final = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}

_DEFAULTS: Final[dict[str, Any]] = {
    "AWS_ENDPOINT_URL": None,
    "AWS_REGION": None,
    "AWS_REQUIRE_SECRETS": True,
    "AWS_SESSION_TOKEN": None,
    "DB_URL": None,
    "DRY_RUN": False,
    "ODBC_CONNECT_PARAMS": "SERVER,PORT,DRIVER,UID,PWD",
    "ODBC_DRIVER": None,
    "ODBC_FLAVOR": "mssql",
    "ODBC_PORT": None,
    "ODBC_SERVER": None,
    "RESULTS": "auto",
    **dict.fromkeys(_OTHER),
}


class _Settings(type):
    """Looks a setting up: assigned here, assigned to a base, in the environment, its default."""

    def __getattribute__(cls, name: str) -> Any:
        if not name.isupper():
            return super().__getattribute__(name)
        names = (name, _OTHER[name]) if name in _OTHER else (name,)
        for each in type.__getattribute__(cls, "__mro__"):
            for one in names:
                if one in each.__dict__:
                    return each.__dict__[one]
        for one in names:
            if (given := os.environ.get(PREFIX + one)) is not None:
                return given
        if name == "ODBC_CONNECT_URL":
            return _odbc_url(cls)
        if name in _DEFAULTS:
            return _DEFAULTS[name]
        raise AttributeError(f"{cls.__name__}.{name} is not set; assign it, or set {PREFIX}{name}")

    def __getattr__(cls, name: str) -> Any:
        """Names that are not in capitals, which the environment may hold too."""
        if not name.startswith("__") and (given := os.environ.get(PREFIX + name)) is not None:
            return given
        raise AttributeError(f"{cls.__name__}.{name} is not set; assign it, or set {PREFIX}{name}")

    if TYPE_CHECKING:

        def __setattr__(cls, name: str, value: Any) -> None: ...

    def reset(cls) -> None:
        """Forget what was assigned; the environment counts again."""
        for name in [name for name in vars(cls) if not name.startswith("_")]:
            delattr(cls, name)


class BigraysConfig(metaclass=_Settings):
    """What resources need to know.

    An attribute that was assigned (``BigraysConfig.AWS_REGION = "eu-west-1"``) wins over the environment variable of
    its name with ``BIGRAYS_`` in front; every such variable is an attribute, a text. Both are looked up when they are
    used. A task may have a configuration of its own: ``resource_config = MyConfig``, a subclass of this, or anything
    with attributes.

    * ``DB_URL``: a SQLAlchemy URL. ``DB_DSN`` may hold one too; ``DB_USER`` and ``DB_PWD`` (``ODBC_UID``, ``ODBC_PWD``)
      fill in what the URL leaves out. A ``DB_DSN`` (``ODBC_DSN``) without ``://`` names an ODBC data source;
      ``ODBC_SERVER``, ``ODBC_PORT``, ``ODBC_DRIVER`` describe one, ``ODBC_CONNECT_PARAMS`` says what goes into the
      connection string, ``ODBC_FLAVOR`` the dialect.
    * ``S3_ACCESS_KEY_ID``, ``S3_SECRET_ACCESS_KEY`` (= ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``),
      ``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL`` for stores that speak S3. With
      ``AWS_REQUIRE_SECRETS`` false, boto3 looks for credentials where it always does.
    * ``RESULTS``: what queries give: "auto" (pandas if installed, rows if not), "rows", "pandas" or "polars".
    * ``DRY_RUN``: true: every run prints its plan and does nothing.
    """


BigRaysConfig = BigraysConfig


def setting(config: Any, name: str) -> Any:
    """A setting of any configuration: a class such as BigraysConfig, an object with attributes, or a mapping.

    Returns:
        The default if it is absent, None, or an empty text (but for passwords, which may be empty).
    """
    for one in (name, _OTHER[name]) if name in _OTHER else (name,):
        value = config.get(one) if isinstance(config, Mapping) else getattr(config, one, None)
        if value is not None and (value != "" or name in ("DB_PWD", "ODBC_PWD")):
            return value
    return _DEFAULTS.get(name)


def flag(config: Any, name: str) -> bool:
    """A setting that says yes or no; texts of the environment too.

    Raises:
        ConfigurationError: it says neither.
    """
    value = setting(config, name)
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", "none", ""):
        return False
    raise ConfigurationError(f"{name}={value!r} is not possible; give true or false")


def environment_name(name: str) -> str:
    """The variable that sets it."""
    return PREFIX + name


def odbc_string(config: Any) -> str:
    """``KEY=value;…`` of the settings that ``ODBC_CONNECT_PARAMS`` lists, or of a data source and its account."""
    if setting(config, "ODBC_SERVER") is None and setting(config, "DB_DSN") is not None:
        names = ["DSN", "UID", "PWD"]
    else:
        names = [name.strip() for name in str(setting(config, "ODBC_CONNECT_PARAMS")).split(",") if name.strip()]
    found = ((name, setting(config, f"ODBC_{name}")) for name in names)
    return ";".join(f"{name}={_braced(str(value))}" for name, value in found if value is not None)


def _odbc_url(config: Any) -> str:
    quoted = urllib.parse.quote_plus(odbc_string(config))
    return f"{setting(config, 'ODBC_FLAVOR')}+pyodbc:///?odbc_connect={quoted}"


def _braced(value: str) -> str:
    """As ODBC wants a value that holds what separates values."""
    return "{" + value.replace("}", "}}") + "}" if set(value) & set(";{}") else value
