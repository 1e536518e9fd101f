"""Apache Kafka, one broker without ZooKeeper, from the jars its makers publish."""

from __future__ import annotations

from pathlib import Path

from tests.servers.provision.cache import Cache, run
from tests.servers.provision.server import HOST, Instance, Server

SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
log.dirs={logs}
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


class Kafka(Server):
    """A broker that is its own controller. Settings are those of server.properties. Needs a JDK 17."""

    name = "kafka"
    version = "4.1.1"
    source = "maven"
    ports = 2
    start_timeout = 120.0

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.jdk(17)
        cache.jars(folder, f"org.apache.kafka:kafka_2.13:{self.version}", "org.slf4j:slf4j-simple:1.7.36")

    def command(self, instance: Instance) -> list[object]:
        options = ("-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        java = [instance.cache.jdk(17) / "bin" / "java", *options, "-cp", f"{self.home(instance.cache)}/*"]
        logs, properties = instance.data / "logs", instance.data / "server.properties"
        text = SETTINGS.format(host=HOST, port=instance.port, controller=instance.port + 1, logs=logs)
        properties.write_text(text + "".join(f"{key}={value}\n" for key, value in instance.settings.items()))
        if not (logs / "meta.properties").exists():
            # Any id of 22 characters of base64; those that begin with "-" are read as an option.
            storage = ("kafka.tools.StorageTool", "format", "--cluster-id=dGVzdC1jbHVzdGVyLWlkMQ")
            run(*java, *storage, "-c", properties, cwd=instance.data)
        return [*java, "kafka.Kafka", properties]

    def ready(self, instance: Instance) -> bool:
        return "Kafka Server started" in instance.logged()
