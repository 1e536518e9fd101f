from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import parse_qs, urlparse

import pytest

from resilient_exporters.tasks import BigRaysConfig, BigraysConfig, ConfigurationError, S3Client, SNSClient, SQLSession
from resilient_exporters.tasks.config import flag, odbc_string, setting


class TestLookUp:
    def test_both_spellings_are_the_same(self):
        assert BigRaysConfig is BigraysConfig

    def test_every_variable_is_an_attribute_and_an_assignment_wins(self, monkeypatch):
        monkeypatch.setenv("BIGRAYS_MY_CONFIG", "1")
        monkeypatch.setenv("BIGRAYS_lower", "2")
        assert BigraysConfig.MY_CONFIG == "1"
        assert BigraysConfig.lower == "2"
        BigraysConfig.MY_CONFIG = 3
        assert BigraysConfig.MY_CONFIG == 3
        BigraysConfig.reset()
        assert BigraysConfig.MY_CONFIG == "1"

    def test_what_is_not_set_says_how(self):
        with pytest.raises(AttributeError, match="OTHER is not set; assign it, or set BIGRAYS_OTHER"):
            _ = BigraysConfig.OTHER
        assert BigraysConfig.DB_URL is None

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
            ("S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
            ("DB_USER", "ODBC_UID"),
            ("DB_PWD", "ODBC_PWD"),
            ("DB_DSN", "ODBC_DSN"),
        ],
    )
    def test_both_generations_of_names_say_the_same(self, monkeypatch, old, new):
        for given, asked in ((old, new), (new, old)):
            monkeypatch.setenv(f"BIGRAYS_{given}", "env")
            assert getattr(BigraysConfig, asked) == "env"
            assert setting(SimpleNamespace(**{given: "here"}), asked) == "here"
            assert setting({given: "there"}, asked) == "there"
            monkeypatch.delenv(f"BIGRAYS_{given}")
            setattr(BigraysConfig, given, "assigned")
            assert getattr(BigraysConfig, asked) == "assigned"
            BigraysConfig.reset()

    def test_a_subclass_comes_before_its_base_under_either_name(self):
        class Mine(BigraysConfig):
            S3_ACCESS_KEY_ID = "mine"

        BigraysConfig.AWS_ACCESS_KEY_ID = "all"
        assert Mine.AWS_ACCESS_KEY_ID == "mine"
        assert BigraysConfig.S3_ACCESS_KEY_ID == "all"

    def test_an_empty_text_is_no_setting_but_for_a_password(self):
        BigraysConfig.AWS_REGION = BigraysConfig.DB_PWD = ""
        assert setting(BigraysConfig, "AWS_REGION") is None
        assert setting(BigraysConfig, "DB_PWD") == ""

    def test_yes_and_no(self, monkeypatch):
        assert flag(BigraysConfig, "AWS_REQUIRE_SECRETS")
        monkeypatch.setenv("BIGRAYS_AWS_REQUIRE_SECRETS", "False")
        assert not flag(BigraysConfig, "AWS_REQUIRE_SECRETS")
        BigraysConfig.AWS_REQUIRE_SECRETS = "maybe"
        with pytest.raises(ConfigurationError, match="AWS_REQUIRE_SECRETS='maybe' is not possible; give true or false"):
            flag(BigraysConfig, "AWS_REQUIRE_SECRETS")


class TestDatabase:
    @pytest.mark.parametrize("name", ["DB_URL", "DB_DSN", "ODBC_DSN"])
    def test_a_url_by_any_name_with_the_account_beside_it(self, name):
        setattr(BigraysConfig, name, "postgresql://host/db")
        BigraysConfig.DB_USER, BigraysConfig.DB_PWD = "me", "p@ss"
        url = SQLSession.url(BigraysConfig)
        assert (url.drivername, url.username, url.password) == ("postgresql+psycopg", "me", "p@ss")
        assert "p@ss" not in SQLSession.describe(BigraysConfig)
        assert "host/db" in SQLSession.describe(BigraysConfig)
        setattr(BigraysConfig, name, "postgresql://host/db?sslpassword=hidden")
        assert "hidden" not in SQLSession.describe(BigraysConfig)

    def test_the_account_of_the_url_comes_first(self):
        BigraysConfig.DB_URL, BigraysConfig.DB_USER = "postgresql://you:x@host/db", "me"
        assert SQLSession.url(BigraysConfig).username == "you"

    def test_the_odbc_settings_of_the_second_generation(self):
        BigraysConfig.ODBC_UID, BigraysConfig.ODBC_PWD, BigraysConfig.ODBC_PORT = "me", "p;{}", "1433"
        BigraysConfig.ODBC_SERVER, BigraysConfig.ODBC_DRIVER = "host", "ODBC Driver 18"
        assert odbc_string(BigraysConfig) == "SERVER=host;PORT=1433;DRIVER=ODBC Driver 18;UID=me;PWD={p;{}}}"
        url = urlparse(BigraysConfig.ODBC_CONNECT_URL)
        assert url.scheme == "mssql+pyodbc"
        assert parse_qs(url.query)["odbc_connect"] == [odbc_string(BigraysConfig)]

    def test_a_data_source_with_its_account(self):
        BigraysConfig.DB_DSN, BigraysConfig.DB_USER, BigraysConfig.DB_PWD = "warehouse", "me", "x"
        assert odbc_string(BigraysConfig) == "DSN=warehouse;UID=me;PWD=x"
        assert SQLSession.missing_configs(BigraysConfig) == []

    def test_nothing_is_named_by_its_name(self):
        with pytest.raises(ConfigurationError, match=r"SQLSession requires the setting\(s\) DB_URL: .*BIGRAYS_DB_URL"):
            SQLSession.check(BigraysConfig)

    def test_what_is_no_url_is_refused_without_showing_it(self):
        BigraysConfig.DB_URL = "nonsense:secret@x"
        with pytest.raises(ConfigurationError, match="not a SQLAlchemy URL") as caught:
            SQLSession.check(BigraysConfig)
        assert "secret" not in str(caught.value)


class TestAWS:
    def test_keys_are_required_unless_somebody_says_no(self):
        with pytest.raises(ConfigurationError, match=r"S3Client requires .*S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY:"):
            S3Client.check(BigraysConfig)
        with pytest.raises(ConfigurationError, match=r"SNSClient .*SECRET_ACCESS_KEY, AWS_REGION:.*BIGRAYS_AWS_REGION"):
            SNSClient.check(BigraysConfig)
        BigraysConfig.AWS_REQUIRE_SECRETS = False
        S3Client.check(BigraysConfig)
        with pytest.raises(ConfigurationError, match=r"setting\(s\) AWS_REGION:"):
            SNSClient.check(BigraysConfig)

    def test_either_generation_of_keys_is_enough(self):
        BigraysConfig.AWS_ACCESS_KEY_ID, BigraysConfig.S3_SECRET_ACCESS_KEY = "a", "b"
        S3Client.check(BigraysConfig)


@pytest.mark.parametrize(
    ("hidden", "resource", "extra"), [("boto3", "S3Client", "aws"), ("sqlalchemy", "SQLSession", "sql")]
)
def test_a_missing_package_is_named_before_anything_runs(hidden, resource, extra):
    code = f"""
import sys
sys.modules[{hidden!r}] = None
from resilient_exporters import MissingModuleError, tasks

tasks.BigraysConfig.DB_URL, tasks.BigraysConfig.AWS_REQUIRE_SECRETS = "sqlite://", False

class First(tasks.Task):
    def run(self):
        print("it ran")

class Second(tasks.Task):
    required_resource = tasks.{resource}

    def run(self):
        print("it ran")

try:
    tasks.bigrays_run()
except MissingModuleError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    package = {"boto3": "boto3", "sqlalchemy": "SQLAlchemy"}[hidden]
    assert done.stdout == f"{resource} needs {package}: pip install 'resilient-exporters[{extra}]'\n"
