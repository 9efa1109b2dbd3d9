import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.security.OpenSearchSecurityPlugin;
import org.opensearch.transport.Netty4Plugin;

/**
 * Runs one OpenSearch node with its security plugin, from the configuration folder that is its
 * argument. OpenSearch's own main class wants a class loader that is not published.
 */
final class Launcher extends Node {
    private Launcher(Environment environment) {
        super(environment, List.of(OpenSearchSecurityPlugin.class, Netty4Plugin.class), true);
    }

    public static void main(String[] arguments) throws Exception {
        Path configuration = Path.of(arguments[0]);
        Settings home = Settings.builder().put("path.home", configuration.getParent()).build();
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(home, Map.of(), configuration, () -> "node");
        Launcher node = new Launcher(environment);
        node.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        new CountDownLatch(1).await();
    }
}
