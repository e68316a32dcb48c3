import com.google.gson.Gson;
import io.a2a.A2A;
import io.a2a.client.ClientEvent;
import io.a2a.client.TaskEvent;
import io.a2a.client.TaskUpdateEvent;
import io.a2a.client.config.ClientConfig;
import io.a2a.client.transport.grpc.GrpcTransport;
import io.a2a.client.transport.grpc.GrpcTransportConfigBuilder;
import io.a2a.client.transport.jsonrpc.JSONRPCTransport;
import io.a2a.client.transport.jsonrpc.JSONRPCTransportConfigBuilder;
import io.a2a.client.transport.rest.RestTransport;
import io.a2a.client.transport.spi.interceptors.ClientCallContext;
import io.a2a.client.transport.rest.RestTransportConfigBuilder;
import io.a2a.spec.AgentCard;
import io.a2a.spec.Message;
import io.a2a.spec.Part;
import io.a2a.spec.Task;
import io.a2a.spec.TaskNotFoundError;
import io.a2a.spec.TaskQueryParams;
import io.a2a.spec.TextPart;
import io.grpc.ManagedChannelBuilder;
import java.net.URI;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;

/** A2A's Java SDK against an agent: `Client ADDRESS BINDING`. Prints what it saw as JSON. */
public class Client {
    static Message message(String name) {
        return Message.builder().role(Message.Role.ROLE_USER).parts(new TextPart("hello"))
                .messageId(name + "-" + UUID.randomUUID()).build();
    }

    static String text(List<Part<?>> parts) {
        StringBuilder whole = new StringBuilder();
        for (Part<?> part : parts) whole.append(((TextPart) part).text());
        return whole.toString();
    }

    /** This SDK (1.0.0.Alpha3) does not say which version it speaks. */
    static ClientCallContext called() {
        return new ClientCallContext(Map.of(), Map.of("A2A-Version", "1.0"));
    }

    /** The task as it ends. */
    static Task ended(io.a2a.client.Client client, String name) throws Exception {
        CompletableFuture<Task> end = new CompletableFuture<>();
        BiConsumer<ClientEvent, AgentCard> hear = (event, card) -> {
            Task task = event instanceof TaskEvent whole ? whole.getTask()
                    : event instanceof TaskUpdateEvent update ? update.getTask() : null;
            if (task != null && task.status().state().isFinal()) end.complete(task);
        };
        client.sendMessage(message(name), List.of(hear), end::completeExceptionally, called());
        return end.get(60, TimeUnit.SECONDS);
    }

    static io.a2a.client.Client client(AgentCard card, String binding, boolean streaming) throws Exception {
        var builder = io.a2a.client.Client.builder(card)
                .clientConfig(ClientConfig.builder().setStreaming(streaming).build());
        return switch (binding) {
            case "GRPC" -> builder.withTransport(GrpcTransport.class, new GrpcTransportConfigBuilder()
                    .channelFactory(url -> ManagedChannelBuilder.forTarget(url).usePlaintext().build())).build();
            case "HTTP+JSON" -> builder.withTransport(RestTransport.class, new RestTransportConfigBuilder()).build();
            default -> builder.withTransport(JSONRPCTransport.class, new JSONRPCTransportConfigBuilder()).build();
        };
    }

    public static void main(String[] arguments) throws Exception {
        URI address = URI.create(arguments[0] + "/.well-known/agent-card.json");
        AgentCard card = A2A.getAgentCard(
                "http://" + address.getAuthority(), address.getPath().substring(1), Map.of());
        Task task = ended(client(card, arguments[1], false), "tck-complete-task");
        io.a2a.client.Client streaming = client(card, arguments[1], true);
        Task streamed = ended(streaming, "tck-stream-001");
        Task again = streaming.getTask(new TaskQueryParams(task.id()), called());
        String absent = "";
        try {
            streaming.getTask(new TaskQueryParams("absent"), called());
        } catch (Exception error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause())
                if (cause instanceof TaskNotFoundError) absent = "TaskNotFoundError";
        }
        System.out.println(new Gson().toJson(Map.of(
                "answer", text(task.status().message().parts()),
                "streamed", text(streamed.artifacts().get(0).parts()),
                "again", again.status().state().toString(),
                "absent", absent)));
        System.exit(0);
    }
}
