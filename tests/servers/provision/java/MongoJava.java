import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.BsonTimestamp;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.oplog.OplogPosition;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.Collection;
import java.util.List;

/** mongo-java-server on loopback with its data in an H2 file. Arguments: port, file, and "oplog" for change streams. */
public class MongoJava {
    public static void main(String[] arguments) throws Exception {
        var oplog = arguments.length > 2;
        var backend = oplog ? new Replica(arguments[1]) : new H2Backend(arguments[1]);
        backend.version(new Six());
        var server = new MongoServer(backend);
        if (oplog) {
            server.enableOplog();
        }
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
        Thread.currentThread().join();
    }

    /** A change stream says where it begins, as MongoDB's do: behind what the oplog holds. */
    private static class Replica extends H2Backend {
        Replica(String file) {
            super(file);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            var reply = super.handleMessage(message);
            if (reply.get("cursor") instanceof Document cursor && cursor.get("firstBatch") instanceof Collection<?> first
                    && first.isEmpty() && message.getDocument().toString().contains("$changeStream")
                    && !message.getDocument().toString().contains("startAfter")) {
                var oplog = resolveDatabase("local").resolveCollection("oplog.rs", false);
                var last = oplog == null ? null : oplog.queryAllAsStream().map(entry -> (BsonTimestamp) entry.get("ts"))
                        .max(BsonTimestamp::compareTo).orElse(null);
                if (last != null) {
                    cursor.put("postBatchResumeToken", new Document("_data", new OplogPosition(last).toHexString()));
                }
            }
            return reply;
        }
    }

    /** What it says it is: left to itself it says wire version 8, which the drivers of today turn down. */
    private static class Six implements MongoVersion {
        @Override
        public int getWireVersion() {
            return 17;
        }

        @Override
        public List<Integer> getVersionArray() {
            return List.of(6, 0, 0);
        }

        @Override
        public String toVersionString() {
            return "6.0.0";
        }
    }
}
