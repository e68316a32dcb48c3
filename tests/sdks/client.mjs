// A2A's JavaScript SDK against an agent: `node client.mjs ADDRESS BINDING`. Prints what it saw as JSON.
import { randomUUID } from "node:crypto";
import { Role, taskStateToJSON } from "@a2a-js/sdk";
import {
  ClientFactory,
  JsonRpcTransportFactory,
  RestTransportFactory,
} from "@a2a-js/sdk/client";
import { GrpcTransportFactory } from "@a2a-js/sdk/client/grpc";

const [address, binding] = process.argv.slice(2);
const factory = new ClientFactory({
  transports: [new JsonRpcTransportFactory(), new RestTransportFactory(), new GrpcTransportFactory()],
  preferredTransports: [binding],
});
const client = await factory.createFromUrl(`${address}/`, ".well-known/agent-card.json");
const message = (name) => ({
  message: {
    messageId: `${name}-${randomUUID()}`,
    contextId: "",
    taskId: "",
    role: Role.ROLE_USER,
    parts: [{ content: { $case: "text", value: "hello" }, mediaType: "text/plain", filename: "", metadata: undefined }],
    extensions: [],
    referenceTaskIds: [],
    metadata: undefined,
  },
  configuration: undefined,
  metadata: undefined,
  tenant: "",
});
const text = (parts) => parts.map((part) => part.content.value).join("");
const task = await client.sendMessage(message("tck-complete-task"));
let streamed = "";
for await (const event of client.sendMessageStream(message("tck-stream-001"))) {
  const { $case, value } = event.payload;
  if ($case === "artifactUpdate") streamed += text(value.artifact.parts);
}
const again = await client.getTask({ id: task.id, tenant: "" });
let absent = "";
try {
  await client.getTask({ id: "absent", tenant: "" });
} catch (error) {
  // Named after its transport too, as JsonRpcTaskNotFoundError.
  absent = error.constructor.name.endsWith("TaskNotFoundError") ? "TaskNotFoundError" : "";
}
console.log(
  JSON.stringify({
    answer: text(task.status.message.parts),
    streamed,
    again: taskStateToJSON(again.status.state),
    absent,
  }),
);
