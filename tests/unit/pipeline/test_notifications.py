"""Who is told of a run, and what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.pipeline import ConfigurationError, InvalidMailProvided, Pipeline, retries
from resilient_exporters.pipeline.notifications import (
    CLIENTS,
    TEAM,
    AppriseNotifier,
    BaseNotifier,
    SESMailNotifier,
    WebhookNotifier,
)
from resilient_exporters.testing import RecordingExporter
from tests.programs import run as run_program
from tests.services import MailServer, WebService, mail_server, web_service


@pytest.fixture
def service() -> Iterator[WebService]:
    with web_service() as service:
        yield service


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


def run(*notifiers: BaseNotifier, fail: bool = False) -> None:
    records: list[Any] = [{"n": 1}, "no record" if fail else {"n": 2}]
    pipeline = Pipeline(records, writer=RecordingExporter(), notifications=notifiers)
    if fail:
        with pytest.raises(Exception, match="no mapping"):
            pipeline.run()
    else:
        pipeline.run()


def test_a_webhook_gets_all_that_is_known(service: WebService) -> None:
    """Fault 12: the body had no metadata."""
    run(WebhookNotifier(endpoints=[f"{service.url}/a", f"{service.url}/b"]))
    bodies = [json.loads(request.body) for request in service.requests]
    assert [body["job_status"] for body in bodies] == ["STARTED", "STARTED", "COMPLETED", "COMPLETED"]
    assert [request.path for request in service.requests] == ["/a", "/b", "/a", "/b"]
    assert bodies[-1]["writer"]["items_count"] == 2
    assert bodies[-1]["reader"]["read_items"] == 2
    assert bodies[-1]["configuration"]["reader"]["name"] == "IterableReader"
    assert bodies[-1]["elapsed_time"] >= 0
    assert {request.headers["Content-Type"] for request in service.requests} == {"application/json"}


def test_a_webhook_hears_why_a_run_failed(service: WebService) -> None:
    run(WebhookNotifier(endpoints=[service.url]), fail=True)
    body = json.loads(service.requests[-1].body)
    assert body["job_status"] == "FAILED"
    assert "no mapping" in body["msg"]
    assert "Traceback" in body["stack_trace"]
    assert body["writer"] == {"items_count": 0} or "writer" in body


def test_a_webhook_that_fails_stops_nothing(
    service: WebService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    monkeypatch.setitem(retries.retrying.__kwdefaults__ or {}, "sleep", waits.append)
    service.answer = lambda request: (500 if request.path.startswith("/bad") else 200, {}, b"")
    run(WebhookNotifier(endpoints=[f"{service.url}/bad?token=geheim", f"{service.url}/good"]))
    assert [r.path for r in service.requests if r.path == "/good"] == ["/good", "/good"]
    assert len(waits) == 9  # the start waits for nobody
    assert f"{service.url}/bad was not told that the job is COMPLETED" in caplog.text
    assert "geheim" not in caplog.text


def test_a_wait_that_a_signal_ends_makes_no_finished_run_unfinished(service: WebService) -> None:
    """A second attempt would wait; the run is complete, whoever was told of it."""
    service.answer = lambda request: (503, {}, b"")

    class Late(WebhookNotifier):
        def notify_complete_dump(self, receivers: Any = (), info: Any = None) -> None:
            retries.stop_waiting()  # what a signal does
            super().notify_complete_dump(receivers, info)

    exporter = RecordingExporter()
    try:
        report = Pipeline([{"n": 1}], writer=exporter, notifications=[Late(endpoints=[service.url])]).run()
    finally:
        retries.stop_waiting(False)
    assert report.complete
    assert len(service.requests) == 2


def test_mails_to_clients_and_team(mails: MailServer) -> None:
    notifier = SESMailNotifier(
        smtp_host="127.0.0.1", smtp_port=mails.port, mail_from="Exports <export@example.org>",
        team_mails=["team@example.org"], client_mails=["client@example.org"], client_name="Bakery",
    )  # fmt: skip
    run(notifier)
    assert [(to, mail["Subject"]) for to, mail in mails.mails] == [
        (["client@example.org"], "Started Bakery export job"),
        (["team@example.org"], "Started Bakery export job"),
        (["client@example.org"], "Bakery export job finished"),
        (["team@example.org"], "Bakery export job finished"),
    ]
    assert "Records: 2" in mails.mails[-1][1].get_content()
    assert mails.mails[0][1]["From"] == "Exports <export@example.org>"


def test_only_the_team_hears_of_a_failure(mails: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUB_JOBKEY", "1/2/3")
    notifier = SESMailNotifier(
        smtp_host="127.0.0.1", smtp_port=mails.port, mail_from="export@example.org", team_mails=["team@example.org"],
        client_mails=["client@example.org"],
    )  # fmt: skip
    run(notifier, fail=True)
    to, mail = mails.mails[-1]
    assert to == ["team@example.org"]
    text = mail.get_content()
    assert mail["Subject"] == "Failed Customer export job"
    assert all(part in text for part in ("no mapping", "Traceback", "1/2/3", "IterableReader"))
    assert [to for to, mail in mails.mails if "Failed" in mail["Subject"]] == [["team@example.org"]]


def test_a_receiver_may_be_an_address(mails: MailServer) -> None:
    notifier = SESMailNotifier(smtp_host="127.0.0.1", smtp_port=mails.port, mail_from="export@example.org")
    notifier.notify_complete_dump(receivers=["other@example.org", CLIENTS, TEAM], info={})
    assert [to for to, _ in mails.mails] == [["other@example.org"]]
    with pytest.raises(InvalidMailProvided, match="nobody"):
        notifier.notify_complete_dump(receivers=["nobody"], info={})


def test_a_mail_server_that_refuses_stops_nothing(mails: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    mails.refuse = lambda receiver: "550 no such user" if receiver == "gone@example.org" else None
    run(
        SESMailNotifier(
            smtp_host="127.0.0.1",
            smtp_port=mails.port,
            mail_from="export@example.org",
            team_mails=["gone@example.org", "team@example.org"],
        )
    )
    assert [to for to, _ in mails.mails] == [["team@example.org"]] * 2
    assert "gone@example.org did not get the mail" in caplog.text


@pytest.mark.parametrize("address", ["nobody", "a b@example.org", "a@b\r\nBcc: c@d", "a@b, c@d", "@example.org", ""])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InvalidMailProvided, match="team_mails"):
        SESMailNotifier(smtp_host="h", mail_from="a@b.org", team_mails=[address])


def test_neither_smtp_nor_ses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPORTERS_MAIL_AWS_ACCESS_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="smtp_host for an SMTP server, or access_key and secret_key"):
        SESMailNotifier(mail_from="a@b.org")


APPRISE = """
    import logging, sys, warnings
    warnings.filterwarnings("ignore", "'imghdr' is deprecated")  # apprise imports what any of its services needs
    from resilient_exporters.pipeline import Pipeline
    from resilient_exporters.pipeline.notifications import AppriseNotifier
    from resilient_exporters.testing import RecordingExporter

    logging.basicConfig(stream=sys.stdout, level=logging.ERROR)
    team, client, bad = sys.argv[1:]
    bakery = AppriseNotifier(team_urls=[bad, team], client_urls=[client], title="Bakery")
    Pipeline([{"n": 1}], writer=RecordingExporter(), notifications=[bakery]).run()
    try:
        Pipeline(["none"], writer=RecordingExporter(), notifications=[AppriseNotifier(team_urls=[team])]).run()
    except Exception as error:
        print(error)
"""


def test_apprise_tells_any_service(service: WebService) -> None:
    """In a program of its own: apprise keeps threads for the life of a process."""
    service.answer = lambda request: (500 if request.path.startswith("/bad") else 200, {}, b"")
    out = run_program(APPRISE, *(service.url.replace("http", "json") + path for path in ("/team", "/client", "/bad")))
    told = [(request.path.strip("/"), json.loads(request.body)) for request in service.requests]
    assert [(path, body["title"], body["type"]) for path, body in told if path != "bad"] == [
        ("client", "Bakery started", "info"),
        ("team", "Bakery started", "info"),
        ("client", "Bakery finished", "success"),
        ("team", "Bakery finished", "success"),
        ("team", "Export job started", "info"),
        ("team", "Export job failed", "failure"),
    ]
    assert "no mapping" in told[-1][1]["message"]
    assert "1 records" in next(body["message"] for _, body in told if body["type"] == "success")
    assert out.count("was not told") == 2


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
def test_apprise_services_that_there_are_not() -> None:
    with pytest.raises(ConfigurationError, match=r"URL 1 \(nosuch://…\)") as error:
        AppriseNotifier(team_urls=["nosuch://geheim"])
    assert "geheim" not in str(error.value)


def test_endpoints_from_the_environment(service: WebService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token in one of them is not kept with the job."""
    monkeypatch.setenv("HOOKS", f"{service.url}/a?token=geheim, {service.url}/b")
    notifier = WebhookNotifier(endpoints={"env": "HOOKS"})
    notifier.notify_start_dump(info={})
    assert [request.path for request in service.requests] == ["/a?token=geheim", "/b"]
    assert "geheim" not in repr(notifier)
