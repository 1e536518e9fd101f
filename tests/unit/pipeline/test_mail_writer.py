"""Records as attachments of mails: none is sent twice, but for the one instant that nobody can note."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import (
    BaseRecord,
    ConfigurationError,
    InvalidMailProvided,
    MaxMailsSent,
    Pipeline,
    PipelineError,
    retries,
)
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import MailWriter
from tests import programs
from tests.services import MailServer, mail_server

ADDRESSES = ["a@example.org", "B <b@example.org>"]
PROGRAM = """
    import sys
    from resilient_exporters.pipeline import Pipeline
    from resilient_exporters.pipeline.persistence import SqlitePersistence
    from resilient_exporters.pipeline.readers import IterableReader
    from resilient_exporters.pipeline.writers import MailWriter

    port, jobs = sys.argv[1:]
    persistence = SqlitePersistence(database=jobs)
    begun = persistence.store.jobs()
    options = {"emails": ["a@example.org"], "subject": "s", "from": "f@example.org", "items_per_buffer_write": 4}
    writer = MailWriter(**options, smtp_host="127.0.0.1", smtp_port=int(port), compression="none")
    reader = IterableReader(({"n": n} for n in range(12)), batch_size=3)
    Pipeline(reader, writer=writer, persistence=persistence, resume=begun[0].id if begun else None).run()
    print("done")
"""


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


def writer(mails: MailServer, **options: Any) -> MailWriter:
    given = {"emails": ADDRESSES, "subject": "Readings", "from": "export@example.org", **options}
    return MailWriter(**{"smtp_host": "127.0.0.1", "smtp_port": mails.port, **given})


def run(mails: MailServer, number: int = 10, resume: str | None = None, **options: Any) -> Any:
    reader = IterableReader(({"n": n} for n in range(number)), batch_size=3)
    return Pipeline(reader, writer=writer(mails, **options), resume=resume)


def attached(mail: Any) -> tuple[str, bytes]:
    (part,) = mail.iter_attachments()
    return part.get_filename(), part.get_content()


def numbers(mails: MailServer) -> list[int]:
    found = []
    for _, mail in mails.mails:
        name, data = attached(mail)
        text = gzip.decompress(data) if name.endswith(".gz") else data
        found += [json.loads(line)["n"] for line in text.splitlines()]
    return found


def test_a_mail_has_the_file_and_what_is_known_of_it(mails: MailServer) -> None:
    report = run(mails).run()
    ((to, mail),) = mails.mails
    name, data = attached(mail)
    assert to == ["a@example.org", "b@example.org"]
    assert (mail["Subject"], mail["From"]) == ("Readings", "export@example.org")
    assert mail["To"] == "a@example.org, B <b@example.org>"
    assert name == "export-0000.jl.gz"
    assert numbers(mails) == list(range(10))
    body = mail.get_body()
    assert body is not None
    text = body.get_content()
    assert f"Name: {name}\nSize: {len(data)} bytes\nRecords: 10" in text.replace("\r\n", "\n")
    assert report.figures["writer"]["mails_sent"] == 1


def test_nothing_is_sent_for_no_records(mails: MailServer) -> None:
    run(mails, 0).run()
    assert mails.mails == []


def test_more_mails_than_allowed_end_the_run(mails: MailServer) -> None:
    pipeline = run(mails, 24, items_per_buffer_write=4)
    with pytest.raises(MaxMailsSent, match="max_mails_sent=5"):
        pipeline.run()
    assert numbers(mails) == list(range(20))
    with pytest.raises(MaxMailsSent):
        run(mails, 24, items_per_buffer_write=4, resume=pipeline.persistence.job).run()
    assert numbers(mails) == list(range(20))


def test_names_of_files(mails: MailServer) -> None:
    run(mails, 10, items_per_buffer_write=4, file_name="r-%Y/{date}", compression="none").run()
    names = [attached(mail)[0] for _, mail in mails.mails]
    assert len(set(names)) == 3
    assert all(name.startswith("r-2") and name.endswith(".jl") and "/" not in name for name in names)


def test_each_group_has_its_mail(mails: MailServer) -> None:
    records = []
    for n in range(9):
        record = BaseRecord(n=n)
        record.group_membership = (n % 3,)
        records.append(record)
    Pipeline(records, writer=writer(mails)).run()
    assert sorted(numbers(mails)) == list(range(9))
    assert len(mails.mails) == 3


def test_a_server_that_asks_to_come_again(mails: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setitem(retries.retrying.__kwdefaults__ or {}, "sleep", waits.append)
    answers: list[str | None] = ["451 later", "452 later"]
    mails.refuse = lambda receiver: answers.pop(0) if receiver is None and answers else None
    run(mails).run()
    assert waits == [2, 4]
    assert numbers(mails) == list(range(10))


def test_a_mail_that_is_refused_ends_the_run(mails: MailServer) -> None:
    mails.refuse = lambda receiver: "552 message too large" if receiver is None else None
    pipeline = run(mails)
    with pytest.raises(PipelineError, match=r"export-0000.jl.gz \(\d+ bytes\).*552 message too large"):
        pipeline.run()
    mails.refuse = lambda receiver: None
    run(mails, resume=pipeline.persistence.job).run()
    assert numbers(mails) == list(range(10))


def test_an_address_that_is_refused_is_said(mails: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    mails.refuse = lambda receiver: "550 unknown" if receiver == "a@example.org" else None
    run(mails).run()
    assert [to for to, _ in mails.mails] == [["b@example.org"]]
    assert "did not go to a@example.org: 550 unknown" in caplog.text


def test_a_kill_before_the_answer_repeats_that_mail_under_its_id(mails: MailServer, tmp_path: Path) -> None:
    """The server took it, and nobody could note that: what the documentation says."""
    # Given a program that is killed when the server has taken its second mail, and has not answered
    program: Any = None
    mails.taken = lambda: program.kill() if len(mails.mails) == 2 else None
    program = programs.start(PROGRAM, mails.port, tmp_path / "jobs.db")
    program.communicate()
    assert program.returncode == -9

    # When it is resumed
    programs.run(PROGRAM, mails.port, tmp_path / "jobs.db")

    # Then that one mail came twice, with one id, and no other
    ids = [mail["Message-ID"] for _, mail in mails.mails]
    assert ids == [ids[0], ids[1], ids[1], ids[3]]
    assert len(set(ids)) == 3
    assert numbers(mails) == [*range(4), *range(4, 8), *range(4, 8), *range(8, 12)]


def test_a_mail_that_is_noted_is_not_sent_again(mails: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure between the note and the commit that knows of it."""
    pipeline = run(mails, 10, items_per_buffer_write=4)
    commit = pipeline.persistence.commit

    def fail(checkpoint: Any) -> None:
        if mails.mails:
            raise InterruptedError("killed")
        commit(checkpoint)

    monkeypatch.setattr(pipeline.persistence, "commit", fail)
    with pytest.raises(InterruptedError):
        pipeline.run()
    assert len(mails.mails) == 1
    report = run(mails, 10, items_per_buffer_write=4, resume=pipeline.persistence.job).run()
    assert numbers(mails) == list(range(10))
    assert report.figures["writer"]["mails_sent"] == 3


@pytest.mark.filterwarnings("ignore:Session.login_data is deprecated")  # aiosmtpd's own
def test_an_account_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiosmtpd.smtp import AuthResult

    # Given a server with a certificate, which wants an account
    openssl = programs_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*openssl)
    monkeypatch.setenv("SSL_CERT_FILE", str(openssl[0]))
    seen = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        seen.append((data.login, data.password))
        return AuthResult(success=data.password == b"geheim", handled=False)

    with mail_server(tls_context=context, authenticator=authenticate, auth_required=True) as mails:
        # When a mail is sent with it, then the password goes over STARTTLS
        options: dict[str, Any] = {"smtp_host": "localhost", "smtp_user": "me"}
        run(mails, smtp_password="geheim", **options).run()
        assert numbers(mails) == list(range(10))
        assert seen == [(b"me", b"geheim")]

        # And a wrong one ends the run, with what the server said
        with pytest.raises(PipelineError, match="535"):
            run(mails, smtp_password="falsch", **options).run()


def programs_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost."""
    import subprocess

    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_a_password_is_not_sent_in_clear(mails: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilient_exporters.pipeline.mailer._LOOPBACK", ())
    with pytest.raises(PipelineError, match="has no STARTTLS, and the password is not sent in clear"):
        run(mails, smtp_user="me", smtp_password="geheim").run()


def test_amazon_ses(monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto")
    import boto3
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.ses.models import ses_backends

    monkeypatch.setenv("EXPORTERS_MAIL_AWS_ACCESS_KEY", "key")
    monkeypatch.setenv("EXPORTERS_MAIL_AWS_SECRET_KEY", "secret")
    with moto.mock_aws():
        client = boto3.client("ses", region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")
        options = {"emails": ["a@example.org"], "subject": "Readings", "from": "export@example.org"}
        with pytest.raises(PipelineError, match="Amazon SES"):
            Pipeline([{"n": 1}], writer=MailWriter(**options)).run()
        client.verify_email_identity(EmailAddress="export@example.org")
        client.close()
        Pipeline([{"n": 1}], writer=MailWriter(**options)).run()
        (sent,) = ses_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].sent_messages
        assert set(sent.destinations) == {"a@example.org"}
        assert "export-0000.jl.gz" in sent.raw_data


@pytest.mark.parametrize(
    ("options", "message", "kind"),
    [
        ({"emails": ["nobody"]}, "emails: 'nobody'", InvalidMailProvided),
        ({"from": "x"}, "from: 'x'", InvalidMailProvided),
        ({"emails": []}, "give at least one address", ConfigurationError),
        ({"subject": "a\nBcc: b@c.d"}, "give one line", ConfigurationError),
        ({"smtp_user": "me"}, "smtp_user and smtp_password: give both", ConfigurationError),
        ({"smtp_host": None}, "give smtp_host", ConfigurationError),
        ({"smtp_tls": "startls"}, "did you mean starttls", ConfigurationError),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str, kind: type[Exception]) -> None:
    nobody = MailServer()
    nobody.port = 25
    with pytest.raises(kind) as error:
        writer(nobody, **options)
    assert message in str(error.value)
