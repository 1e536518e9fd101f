import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import java.util.List;

/** mongo-java-server on loopback with its data in an H2 file. Arguments: port, file. */
public class MongoJava {
    public static void main(String[] arguments) throws Exception {
        var backend = new H2Backend(arguments[1]);
        backend.version(new Six());
        var server = new MongoServer(backend);
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
        Thread.currentThread().join();
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
