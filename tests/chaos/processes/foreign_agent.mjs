// An agent of the A2A SDK for JavaScript behind HTTP. It knows of this project one extension alone:
// its message says where its model is. `node foreign_agent.mjs PORT`
import { DefaultRequestHandler, AgentEvent, InMemoryTaskStore } from "@a2a-js/sdk/server";
import { UserBuilder, agentCardHandler, jsonRpcHandler } from "@a2a-js/sdk/server/express";
import { Role, TaskState } from "@a2a-js/sdk";
import express from "express";

const MODEL = "urn:odradek:a2a:model:v1";
const port = Number(process.argv[2]);
const text = (value) => ({ content: { $case: "text", value }, metadata: undefined, filename: "", mediaType: "" });
const status = (state, message) => ({ state, message, timestamp: new Date().toISOString() });

class Foreign {
  async execute(context, bus) {
    const ids = { taskId: context.taskId, contextId: context.contextId };
    const working = status(TaskState.TASK_STATE_WORKING, undefined);
    bus.publish(AgentEvent.task({
      id: ids.taskId, contextId: ids.contextId, status: working, artifacts: [],
      history: [context.userMessage], metadata: {},
    }));
    const where = context.userMessage.metadata[MODEL];
    const reply = await fetch(`${where.base_url}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${where.api_key}`, "content-type": "application/json" },
      body: JSON.stringify({ model: where.model, messages: [{ role: "user", content: "go" }] }),
    });
    const said = (await reply.json()).choices[0].message.content;
    bus.publish(AgentEvent.artifactUpdate({
      ...ids, append: false, lastChunk: true, metadata: {},
      artifact: { artifactId: "a", name: "", description: "", parts: [text(said)], metadata: {}, extensions: [] },
    }));
    const message = {
      messageId: `${ids.taskId}/end`, ...ids, role: Role.ROLE_AGENT, parts: [text(said)],
      metadata: {}, extensions: [], referenceTaskIds: [],
    };
    const done = status(TaskState.TASK_STATE_COMPLETED, message);
    bus.publish(AgentEvent.statusUpdate({ ...ids, status: done, metadata: {} }));
    bus.finished();
  }

  cancelTask = async () => {};
}

const card = {
  name: "foreign", description: "d", version: "1", skills: [], signatures: [],
  supportedInterfaces: [{
    url: `http://localhost:${port}/rpc`, protocolBinding: "JSONRPC", tenant: "", protocolVersion: "1.0",
  }],
  capabilities: { streaming: true, pushNotifications: false, extensions: [], extendedAgentCard: false },
  securitySchemes: {}, securityRequirements: [], provider: undefined,
  defaultInputModes: ["text/plain", "application/json"], defaultOutputModes: ["text/plain"],
};
const handler = new DefaultRequestHandler(card, new InMemoryTaskStore(), new Foreign());
const app = express();
app.use("/.well-known/agent-card.json", agentCardHandler({ agentCardProvider: handler }));
app.use("/rpc", jsonRpcHandler({ requestHandler: handler, userBuilder: UserBuilder.noAuthentication }));
app.listen(port, "127.0.0.1");
