import java.nio.file.Path;
import java.util.Map;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.plugins.PluginsLoader;

/** One Elasticsearch node, as its start script would run it. Argument: its home with config, modules and plugins. */
public class Node {
    public static void main(String[] arguments) throws Exception {
        var home = Path.of(arguments[0]);
        var config = home.resolve("config");
        LogConfigurator.configureESLogging();
        LogConfigurator.setNodeName("node");
        var settings = Settings.builder().loadFromPath(config.resolve("elasticsearch.yml"));
        var environment = new Environment(settings.put("path.home", home.toString()).build(), config);
        var modules = PluginsLoader.loadModulesBundles(environment.modulesDir());
        var plugins = PluginsLoader.loadPluginsBundles(environment.pluginsDir());
        var node = new org.elasticsearch.node.Node(
            environment, PluginsLoader.createPluginsLoader(modules, plugins, Map.of()));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node)));
        node.start();
        Thread.currentThread().join();
    }

    private static void close(AutoCloseable node) {
        try {
            node.close();
        } catch (Exception error) {
            error.printStackTrace();
        }
    }
}
