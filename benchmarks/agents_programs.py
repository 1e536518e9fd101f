"""rsyslog, syslog-ng and the OpenTelemetry Collector: where they come from, and the settings they are measured with.

Debian's packages are unpacked into the cache of the test servers, the Collector is built there; nothing is installed.
Every agent keeps its queue in ``queue`` below its folder, posts bulks of 500 to one HTTP address, and tries again for
ever. Where a setting is not given here, the agent's own default holds.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path

from tests.servers.provision import HOST, Cache, Instance, Server
from tests.servers.provision.cache import run

__all__ = ["AGENTS", "QUEUE", "Agent"]

QUEUE = "queue"
BATCH = 500


class Agent(Server):
    """One agent.

    Settings: target (port of the receiver), retry (seconds between attempts; none: the agent's default), queue (its
    folder; none: below its data), variant.

    Attributes:
        otlp: whether it is fed by OTLP over HTTP, not by lines over TCP.
        variant: what of its settings is chosen.
        share: part of the records that it is given in a benchmark, for one that takes minutes for all.
    """

    otlp = False
    variant = ""
    share = 1.0

    @property
    @abstractmethod
    def title(self) -> str:
        """What the table calls it."""

    def queue(self, instance: Instance) -> Path:
        """Where it keeps what waits."""
        folder = Path(instance.settings.get("queue", str(instance.data / QUEUE)))
        folder.mkdir(exist_ok=True)
        return folder


class _Debian(Agent):
    source = "apt"
    version = "debian"
    packages: tuple[str, ...] = ()

    def fetch(self, cache: Cache, folder: Path) -> None:  # noqa: ARG002 - as the base class has it
        archives = folder / "archives"
        (archives / "partial").mkdir(parents=True)
        quiet = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
        run(*quiet, "update")
        run(
            *(*quiet, "install", "-y", "--no-install-recommends", "--download-only", "--reinstall"),
            *("-o", f"Dir::Cache::archives={archives}", *self.packages),
        )
        for archive in sorted(archives.glob("*.deb")):
            run("dpkg", "-x", archive, folder)
            archive.unlink()

    def _libraries(self, cache: Cache) -> list[Path]:
        """First those beside the modules."""
        home = self.home(cache)
        return [*home.glob("usr/lib/*-linux-gnu"), *home.glob("lib/*-linux-gnu")]

    def _environment(self, *folders: Path) -> tuple[str, str]:
        return "env", f"LD_LIBRARY_PATH={':'.join(map(str, folders))}"


class Rsyslog(_Debian):
    """rsyslog: imtcp to omelasticsearch in bulk mode, the one HTTP output among Debian's packages.

    "DA": a queue in memory that goes to disk when it is long and at the end (its manual's advice for an unreliable
    target). "Disk": every record to disk and synced.
    """

    packages = ("rsyslog", "rsyslog-elasticsearch")

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.share = 0.02 if variant == "Disk" else 1.0

    name = "rsyslog"

    @property
    def title(self) -> str:
        return f"rsyslog {self.variant}"

    def command(self, instance: Instance) -> list[object]:
        kinds = {
            "DA": 'queue.type="LinkedList" queue.size="10000"',  # with the default, 1,000, it often stood still
            "Disk": 'queue.type="Disk" queue.size="1000000" queue.syncqueuefiles="on" queue.checkpointInterval="100"',
        }
        retry = instance.settings.get("retry")
        configuration = instance.data / "rsyslog.conf"
        configuration.write_text(f"""\
global(workDirectory="{self.queue(instance)}" net.enableDNS="off" maxMessageSize="8k")
module(load="imtcp")
module(load="omelasticsearch")
template(name="record" type="string" string="%msg%")
input(type="imtcp" address="{HOST}" port="{instance.port}" ruleset="records")
ruleset(name="records" queue.type="Direct") {{
  action(type="omelasticsearch" server="{HOST}" serverport="{instance.settings["target"]}" template="record"
         bulkmode="on" searchIndex="r" searchType="" healthchecktimeout="1000"
         {kinds[self.variant]} queue.filename="q" queue.maxDiskSpace="1g" queue.saveOnShutdown="on"
         queue.dequeueBatchSize="{BATCH}" queue.timeoutEnqueue="600000"
         action.resumeRetryCount="-1" {f'action.resumeInterval="{retry}"' if retry else ""})
}}
syslog.* action(type="omfile" file="{instance.data / "said"}")
""")
        libraries = self._libraries(instance.cache)
        return [
            *self._environment(*libraries),
            *(self.home(instance.cache) / "usr" / "sbin" / "rsyslogd", "-n", "-f", configuration),
            *("-i", instance.data / "pid", "-M", libraries[0] / "rsyslog"),
        ]


class SyslogNg(_Debian):
    """syslog-ng: network() unparsed, with flow control, to http() in batches, with a reliable disk buffer."""

    name = "syslog-ng"
    packages = ("syslog-ng-core", "syslog-ng-mod-http")
    title = "syslog-ng"

    def command(self, instance: Instance) -> list[object]:
        retry = instance.settings.get("retry")
        configuration = instance.data / "syslog-ng.conf"
        configuration.write_text(f"""\
@version: 3.38
options {{ use-dns(no); chain-hostnames(no); {f"time-reopen({retry});" if retry else ""} }};
source records {{
  network(ip("{HOST}") port({instance.port}) transport("tcp") flags(no-parse) max-connections(10));
}};
destination receiver {{
  http(url("http://{HOST}:{instance.settings["target"]}/") method("POST") body("${{MESSAGE}}") delimiter("\\n")
       batch-lines({BATCH}) batch-timeout(100) workers(1) retries(1000000)
       disk-buffer(reliable(yes) disk-buf-size(1073741824) dir("{self.queue(instance)}")));
}};
log {{ source(records); destination(receiver); flags(flow-control); }};
""")
        home = self.home(instance.cache)
        modules = next((home / "usr" / "lib" / "syslog-ng").glob("[0-9]*"))
        return [
            *self._environment(*self._libraries(instance.cache), home / "usr" / "lib" / "syslog-ng"),
            *(home / "usr" / "sbin" / "syslog-ng", "--foreground", "--no-caps", "--stderr"),
            *(f"--cfgfile={configuration}", f"--module-path={modules}"),
            *(f"--persist-file={self.queue(instance) / 'persist'}", f"--pidfile={instance.data / 'pid'}"),
            f"--control={instance.data / 'control'}",
        ]


class Collector(Agent):
    """OpenTelemetry Collector: otlp receiver to otlphttp exporter, the queue in file_storage, one consumer.

    One consumer, not the ten of the default: it keeps the order and costs less.
    """

    name = "otelcol"
    version = "0.155.0"
    source = "go"
    otlp = True

    def __init__(self, variant: str) -> None:
        self.variant = variant

    @property
    def title(self) -> str:
        return f"OTel Collector{', fsync' if self.variant == 'fsync' else ''}"

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.need_go(25)
        work = folder / "work"
        work.mkdir()
        stable = f"1.{int(self.version.split('.')[1]) - 94}.0"  # what is stable has a number of its own
        (work / "go.mod").write_text(_MODULE.format(version=self.version, stable=stable))
        (work / "main.go").write_text(_MAIN)
        cache.go(folder, "build", "-ldflags=-s -w", "-o", folder / self.name, ".", cwd=work)
        for left in ("work", "gopath", "gocache"):
            run("rm", "-rf", folder / left)

    def command(self, instance: Instance) -> list[object]:
        retry = instance.settings.get("retry")
        waits = f"initial_interval: {retry}s, max_interval: {retry}s, " if retry else ""
        configuration = instance.data / "collector.yaml"
        configuration.write_text(f"""\
receivers: {{otlp: {{protocols: {{http: {{endpoint: "{HOST}:{instance.port}"}}}}}}}}
extensions:
  file_storage: {{directory: "{self.queue(instance)}", fsync: {str(self.variant == "fsync").lower()}}}
exporters:
  otlphttp:
    endpoint: http://{HOST}:{instance.settings["target"]}
    compression: none
    sending_queue: {{storage: file_storage, queue_size: 10000000, sizer: items, num_consumers: 1}}
    retry_on_failure: {{{waits}max_elapsed_time: 0}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{logs: {{receivers: [otlp], exporters: [otlphttp]}}}}
""")
        return [self.home(instance.cache) / self.name, f"--config=file:{configuration}"]

    def installed(self, cache: Cache) -> bool:
        return os.access(self.home(cache) / self.name, os.X_OK)


_MODULE = """\
module collector

go 1.25.0

require (
	github.com/open-telemetry/opentelemetry-collector-contrib/extension/storage/filestorage v{version}
	go.opentelemetry.io/collector/confmap/provider/fileprovider v{stable}
	go.opentelemetry.io/collector/exporter/otlphttpexporter v{version}
	go.opentelemetry.io/collector/otelcol v{version}
	go.opentelemetry.io/collector/receiver/otlpreceiver v{version}
)
"""
_MAIN = """\
package main

import (
	"log"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/storage/filestorage"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

func parts() (otelcol.Factories, error) {
	found := otelcol.Factories{Telemetry: otelconftelemetry.NewFactory()}
	var err error
	if found.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory()); err != nil {
		return found, err
	}
	if found.Exporters, err = otelcol.MakeFactoryMap[exporter.Factory](otlphttpexporter.NewFactory()); err != nil {
		return found, err
	}
	found.Extensions, err = otelcol.MakeFactoryMap[extension.Factory](filestorage.NewFactory())
	return found, err
}

func main() {
	settings := otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector"},
		Factories: parts,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory()},
				DefaultScheme:     "file",
			},
		},
	}
	command := otelcol.NewCommand(settings)
	command.SetArgs(os.Args[1:])
	if err := command.Execute(); err != nil {
		log.Fatal(err)
	}
}
"""

AGENTS: dict[str, Agent] = {
    "rsyslog": Rsyslog("DA"),
    "rsyslog-disk": Rsyslog("Disk"),
    "syslog-ng": SyslogNg(),
    "otel": Collector("nosync"),
    "otel-fsync": Collector("fsync"),
}
